import { formatDuration } from "./routes-report.ts";

/** Hears how far a diagnosis is. */
export interface ProgressSink {
  /** `done` of `total` ways have been looked at; the others take at most `mostMs`, where everything hangs. */
  advanced(done: number, total: number, mostMs: number): void;
  /** A data centre is done: one line for a person. */
  finished(text: string, outcome: "good" | "bad"): void;
  /** Nothing more comes: whatever stands on the screen for a while goes away. */
  stop(): void;
}

/**
 * Makes a sink for standard error: lines of consola and a running count on a terminal, plain lines elsewhere.
 *
 * @param stderr `process.stderr`.
 */
export async function createProgress(stderr: NodeJS.WriteStream): Promise<ProgressSink> {
  if (!stderr.isTTY) {
    return {
      advanced: () => {},
      finished: (text, outcome) => void stderr.write(`${outcome === "good" ? "ok  " : "FAIL"}  ${text}\n`),
      stop: () => {},
    };
  }
  const { createConsola, LogLevels } = await import("consola");
  const consola = createConsola({
    level: LogLevels.info,
    stdout: stderr,
    stderr,
    formatOptions: { date: false },
  });
  const eraseLine = "\r\u001b[K";
  return {
    advanced: (done, total, mostMs) => {
      const left = done === total ? "" : `, at most ${formatDuration(mostMs)} more`;
      stderr.write(`${eraseLine}  ${done} of ${total} ways${left}`);
    },
    finished: (text, outcome) => {
      stderr.write(eraseLine);
      if (outcome === "good") consola.success(text);
      else consola.fail(text);
    },
    stop: () => void stderr.write(eraseLine),
  };
}
