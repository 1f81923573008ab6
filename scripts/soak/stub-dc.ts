/**
 * The data centres of the soak: two of them, each with a WebSocket server and a TCP port, on loopback.
 *
 * `bun stub-dc.ts CERTIFICATE KEY`, with an IPC channel; ends when that does.
 */
import type { Conversation } from "./conversation.ts";
import { type DoorOptions, TcpDoor, WebSocketDoor } from "./dc-doors.ts";
import type { DcOrder, DcReport } from "./orders.ts";
import { CorruptionError } from "./wire.ts";

const [certificateFile = "", keyFile = ""] = process.argv.slice(2);
const conversations = new Set<Conversation>();
const options: DoorOptions = {
  certificateFile,
  keyFile,
  conversations,
  onTrouble: (error) =>
    tell({ type: "trouble", message: error.message, corruption: error instanceof CorruptionError }),
};
const calm = { ws: new WebSocketDoor(options), tcp: new TcpDoor(options) };
const rough = { ws: new WebSocketDoor(options), tcp: new TcpDoor(options) };
for (const door of [calm.ws, calm.tcp, rough.ws, rough.tcp]) door.change("serve");

function tell(report: DcReport): void {
  process.send?.(report);
}

/** @returns Whose connections were broken off. */
function drop(share: number): readonly number[] {
  const known = [...conversations].filter(({ session }) => session !== undefined);
  const chosen = known.filter(() => Math.random() < share);
  for (const conversation of chosen) conversation.drop();
  return chosen.flatMap(({ session }) => session ?? []);
}

process.on("message", (order: DcOrder) => {
  if (order.type === "drop") {
    tell({ type: "dropped", sessions: drop(order.share) });
    return;
  }
  rough[order.door].change(order.state);
  tell({ type: "door" });
});
process.on("disconnect", () => process.exit());
tell({
  type: "ready",
  ports: {
    calm: { ws: calm.ws.port, tcp: calm.tcp.port },
    rough: { ws: rough.ws.port, tcp: rough.tcp.port },
  },
});
