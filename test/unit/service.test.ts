import { describe, expect, test } from "bun:test";
import { ProcessRoom } from "../../src/cli/build-gate.ts";
import { Service } from "../../src/cli/service.ts";
import { openState } from "../../src/cli/state.ts";
import { loadConfig } from "../../src/config/load-config.ts";
import { Rounds } from "../../src/net/rounds.ts";
import { createRecordLogger } from "../../src/observe/log.ts";
import { OPEN_GATE } from "../../src/proxy/gate.ts";
import { openTcp } from "../support/client-stream.ts";
import { eventually } from "../support/sessions.ts";

const LINE = ["--secret", "00112233445566778899aabbccddeeff", "--port", "0", "--no-cfproxy"];

/** Serves, and notes what it keeps of routes. */
async function startService(): Promise<{ service: Service; learn: () => void; kept: string[] }> {
  const kept: string[] = [];
  const state = {
    ...openState(() => {}),
    routes: { read: () => undefined, write: (text: string) => kept.push(text) },
  };
  const loaded = loadConfig(LINE, { environment: {}, platform: process.platform });
  const service = await Service.start(
    { ...loaded, secrets: loaded.config.secrets },
    {
      socket: undefined,
      log: createRecordLogger({ level: "error", write: () => {} }),
      gate: OPEN_GATE,
      hellos: { claim: () => true },
      state,
      room: new ProcessRoom(),
      rounds: new Rounds(),
      keepsRoutes: true,
    },
  );
  const learn = (): void => {
    state.standings.changed = true;
  };
  return { service, learn, kept };
}

describe("Service", () => {
  test("keeps what it has learned about routes when it leaves, and not what it learns while it drains", async () => {
    const { service, learn, kept } = await startService();
    const client = await openTcp(service.server.port);
    await eventually(() => service.server.size === 1, "a session");
    learn();
    const drained = service.drain(60_000);
    expect(kept).toHaveLength(1);
    learn(); // of a session that is still there
    await service.stop(0); // the end of the program: by now another one keeps what it has learned
    await drained;
    expect(kept).toHaveLength(1);
    client.destroy();
  });
});
