import { afterEach, describe, expect, test } from "bun:test";
import { Signals } from "../../src/cli/signals.ts";

const NAMES = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
const before = new Map(NAMES.map((name) => [name, process.listeners(name)]));

afterEach(() => {
  for (const name of NAMES) {
    for (const listener of process.listeners(name)) {
      if (before.get(name)?.includes(listener) !== true) process.off(name, listener);
    }
  }
});

/** What a signal asks for, in order. */
function record(): { readonly asked: string[]; readonly actions: Parameters<Signals["serve"]>[0] } {
  const asked: string[] = [];
  const actions = {
    reload: () => void asked.push("reload"),
    reopenLog: () => void asked.push("reopenLog"),
    restart: () => void asked.push("restart"),
  };
  return { asked, actions };
}

describe.skipIf(process.platform === "win32")("Signals", () => {
  test("asks for what each signal stands for", () => {
    const { asked, actions } = record();
    new Signals().serve(actions);
    for (const name of ["SIGHUP", "SIGUSR1", "SIGUSR2"] as const) process.emit(name, name);
    expect(asked).toEqual(["reload", "reopenLog", "restart"]);
  });

  test("puts a reload off until there is something to reload, and forgets the rest", () => {
    const { asked, actions } = record();
    const signals = new Signals();
    for (const name of ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGHUP"] as const) process.emit(name, name);
    signals.serve(actions);
    expect(asked).toEqual(["reload"]);
  });
});
