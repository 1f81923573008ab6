import { renderUnicodeCompact } from "uqr";

/** Draws a text as a QR code, and returns its lines. */
export function drawQrCode(text: string): string[] {
  return renderUnicodeCompact(text, { border: 2 })
    .split("\n")
    .map((row) => `  ${row}`);
}
