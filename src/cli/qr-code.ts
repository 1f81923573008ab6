import { renderUnicodeCompact } from "uqr";

/**
 * Draws a text as a QR code, and returns its lines.
 *
 * @param columns Of the terminal: where the code does not fit, a line says so instead, since nothing can scan one
 * whose rows are broken.
 */
export function drawQrCode(text: string, columns = 0): string[] {
  const rows = renderUnicodeCompact(text, { border: 2 })
    .split("\n")
    .map((row) => `  ${row}`);
  const width = Math.max(...rows.map(({ length }) => length));
  if (columns === 0 || width <= columns) return rows;
  return [`  The QR code needs a window of ${width} columns; tgws link prints it again`];
}
