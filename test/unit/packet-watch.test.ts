import { describe, expect, test } from "bun:test";
import { PacketWatch } from "../../src/proxy/packet-watch.ts";
import { toOutput } from "../support/memory-channel.ts";
import { encodeLength, TRANSPORTS } from "../support/packets.ts";

/** One whole abridged packet. */
const PACKET = Uint8Array.of(0x01, 1, 2, 3, 4);
const WATCHED_BYTES = 64 * 1_024;
const nowhere = toOutput(() => {});

describe("PacketWatch", () => {
  test("passes every chunk on as it is, also what is no packet, and beyond 64 KiB", () => {
    const watch = new PacketWatch("abridged");
    const chunks = [PACKET, Uint8Array.of(0, 9, 9), new Uint8Array(100_000).fill(7), Uint8Array.of(5)];
    const messages: Uint8Array[] = [];
    for (const chunk of chunks)
      watch.push(
        chunk,
        toOutput((message) => messages.push(message.slice())),
      );
    expect(messages).toEqual(chunks);
  });

  test("is not within a packet before the first byte, nor between packets", () => {
    const watch = new PacketWatch("abridged");
    expect(watch.withinPacket).toBe(false);
    watch.push(Uint8Array.of(...PACKET, ...PACKET, ...PACKET), nowhere);
    expect(watch.withinPacket).toBe(false);
  });

  test.each(TRANSPORTS)(
    "is within an %s packet from its first byte to the one before its last",
    (transport) => {
      const packet = new Uint8Array([...encodeLength(transport, 600), ...new Uint8Array(600).fill(9)]);
      const watch = new PacketWatch(transport);
      for (const [at, byte] of packet.entries()) {
        watch.push(Uint8Array.of(byte), nowhere);
        expect(watch.withinPacket).toBe(at < packet.length - 1);
      }
    },
  );

  test("is not within a packet after a quick-ack token", () => {
    const watch = new PacketWatch("padded");
    watch.push(Uint8Array.of(8, 0, 0, 0x80), nowhere);
    expect(watch.withinPacket).toBe(false);
  });

  test("is not within a packet in a stream that has none", () => {
    const watch = new PacketWatch("intermediate");
    watch.push(Uint8Array.of(0, 0, 0, 0, 5), nowhere);
    expect(watch.withinPacket).toBe(false);
  });

  test.each([
    { bytes: WATCHED_BYTES - 1, within: true },
    { bytes: WATCHED_BYTES, within: false },
    { bytes: WATCHED_BYTES + 1, within: false },
  ])("says after $bytes bytes of one packet: $within", ({ bytes, within }) => {
    const whole = new Uint8Array([...encodeLength("abridged", 1024 * 1024), ...new Uint8Array(bytes - 4)]);
    const inOne = new PacketWatch("abridged");
    inOne.push(whole, nowhere);
    expect(inOne.withinPacket).toBe(within);
    const inMany = new PacketWatch("abridged");
    for (let at = 0; at < whole.length; at += 1_000) inMany.push(whole.subarray(at, at + 1_000), nowhere);
    expect(inMany.withinPacket).toBe(within);
  });
});
