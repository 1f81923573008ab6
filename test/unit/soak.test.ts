import { describe, expect, it } from "bun:test";
import { formatFlags, formatToml } from "../../scripts/soak/config-text.ts";
import { type Excuse, Judge } from "../../scripts/soak/judge.ts";
import { parseOptions } from "../../scripts/soak/options.ts";
import type { Failure } from "../../scripts/soak/orders.ts";
import { planPhases } from "../../scripts/soak/phases.ts";
import { answerReqPq } from "../../scripts/soak/res-pq.ts";
import { judgeDescriptors, judgeMemory } from "../../scripts/soak/verdict.ts";
import {
  CorruptionError,
  KIND,
  type Message,
  MessageReader,
  MessageWriter,
} from "../../scripts/soak/wire.ts";
import { encodeReqPqMulti, parseResPq } from "../../src/protocol/mtproto/req-pq.ts";
import { type TestTransport, TRANSPORTS } from "../support/packets.ts";

const MESSAGES: readonly Message[] = [
  { kind: KIND.echo, session: 1, seq: 7, argument: 0, bodyLength: 0 },
  { kind: KIND.store, session: 1, seq: 8, argument: 0, bodyLength: 500 },
  { kind: KIND.data, session: 1, seq: 9, argument: 3, bodyLength: 200_000 },
];

/** What the writer makes of messages, when nothing is encrypted. */
function write(transport: TestTransport, messages: readonly Message[]): Buffer {
  const writer = new MessageWriter(transport, { update: (bytes) => bytes });
  for (const message of messages) writer.add(message);
  const pieces: Uint8Array[] = [];
  for (let piece = writer.next(); piece !== undefined; piece = writer.next()) pieces.push(piece);
  return Buffer.concat(pieces);
}

function read(transport: TestTransport, bytes: Uint8Array, chunkLength: number): Message[] {
  const messages: Message[] = [];
  const reader = new MessageReader(transport, {
    onMessage: (message) => messages.push(message),
    onPlain: () => {},
  });
  for (let at = 0; at < bytes.length; at += chunkLength) reader.push(bytes.subarray(at, at + chunkLength));
  return messages;
}

describe.each(TRANSPORTS)("messages of the soak over %s", (transport) => {
  it.each([1, 3, 17, 4_096, 300_000])("are read as they were written, %i bytes at a time", (chunkLength) => {
    const bytes = write(transport, MESSAGES);
    expect(read(transport, bytes, chunkLength)).toEqual([...MESSAGES]);
  });

  it("are refused when one byte of a body differs", () => {
    const bytes = write(transport, MESSAGES);
    bytes[bytes.length - 60_000] = (bytes[bytes.length - 60_000] ?? 0) ^ 1;
    expect(() => read(transport, bytes, 4_096)).toThrow(CorruptionError);
  });

  it("are refused when a byte is missing", () => {
    const bytes = write(transport, MESSAGES);
    const short = Buffer.concat([bytes.subarray(0, 1_000), bytes.subarray(1_001)]);
    expect(() => read(transport, Buffer.concat([short, short]), 4_096)).toThrow(CorruptionError);
  });

  it("leave unencrypted messages of MTProto to others", () => {
    const question = encodeReqPqMulti({ nonce: new Uint8Array(16).fill(9), messageId: 4n });
    const writer = new MessageWriter(transport, { update: (bytes) => bytes });
    writer.addPlain(question);
    const plain: Uint8Array[] = [];
    const reader = new MessageReader(transport, {
      onMessage: () => {},
      onPlain: (payload) => plain.push(payload),
    });
    for (const byte of writer.next() ?? []) reader.push(Uint8Array.of(byte));
    expect(plain.map((payload) => payload.toHex())).toEqual([question.toHex()]);
  });
});

describe("answerReqPq()", () => {
  it("answers what the proxy asks, so that the proxy understands it", () => {
    const nonce = new Uint8Array(16).fill(3);
    const answer = answerReqPq(encodeReqPqMulti({ nonce, messageId: 8n }));
    expect(parseResPq(answer ?? new Uint8Array()).nonce.toHex()).toBe(nonce.toHex());
  });

  it("answers nothing else", () => {
    expect(answerReqPq(new Uint8Array(40))).toBeUndefined();
  });
});

function failure(change: Partial<Failure> = {}): Failure {
  return {
    ...{ session: 5, who: "resident-1", port: 4_000, startedAt: 1_000, failedAt: 2_000 },
    ...{ doing: "idle", message: "it ended", corruption: false, ...change },
  };
}

describe("Judge", () => {
  const excuse: Excuse = { fault: "drops", until: 10_000, covers: ({ session }) => session === 5 };

  it("excuses the victims of a fault, also when it hears of the failure first", () => {
    const judge = new Judge();
    judge.hear(failure());
    judge.settle(2_500);
    judge.excuse(excuse);
    judge.settle(20_000);
    expect(judge.excused).toEqual({ drops: 1 });
    expect(judge.unexcusedCount).toBe(0);
  });

  it.each([
    ["somebody else", { session: 6 }],
    ["a victim that fails long after", { failedAt: 10_001 }],
  ])("does not excuse %s", (_, change) => {
    const judge = new Judge();
    judge.excuse(excuse);
    judge.hear(failure(change));
    judge.settle(Number.POSITIVE_INFINITY);
    expect(judge.unexcused).toEqual([failure(change)]);
  });

  it("excuses no changed byte", () => {
    const judge = new Judge();
    judge.excuse(excuse);
    judge.hear(failure({ corruption: true }));
    expect([judge.corruptions, judge.unexcusedCount]).toEqual([1, 1]);
  });
});

describe("judgeDescriptors()", () => {
  const before = [
    {
      pid: 1,
      role: "worker",
      rssKib: 0,
      census: { listener: 1, "data centre": 3, "anon_inode:[eventfd]": 2 },
    },
  ];

  it.each([
    ["the same", { listener: 1, "data centre": 3, "anon_inode:[eventfd]": 2 }, true],
    ["fewer connections that are kept ready", { listener: 1, "anon_inode:[eventfd]": 2 }, true],
    ["as many kept ready as may be", { listener: 1, "data centre": 8, "anon_inode:[eventfd]": 2 }, true],
    ["a thread that is not needed yet", { listener: 1, "anon_inode:[eventfd]": 1 }, true],
    ["more kept ready than may be", { listener: 1, "data centre": 9, "anon_inode:[eventfd]": 2 }, false],
    ["a socket more", { listener: 1, client: 1, "anon_inode:[eventfd]": 2 }, false],
    ["a listener less", { "anon_inode:[eventfd]": 2 }, false],
    ["an event descriptor more", { listener: 1, "anon_inode:[eventfd]": 3 }, false],
  ])("judges %s", (_, census, holds) => {
    const { details, ...criterion } = judgeDescriptors(
      before,
      [{ pid: 2, role: "worker", rssKib: 0, census }],
      8,
    );
    expect(criterion.holds).toBe(holds);
    expect(details).toHaveLength(holds ? 0 : 1);
  });

  it("wants as many processes as before", () => {
    expect(judgeDescriptors(before, [], 8).details).toEqual(["1 processes before, 0 after"]);
  });
});

describe("judgeMemory()", () => {
  const phases = planPhases(600_000);
  const grown = (share: number) =>
    Array.from({ length: 600 }, (_, second) => {
      const rssKib = 100_000 * (second >= 500 ? 1 + share : 1);
      return {
        at: second * 1_000,
        live: 1,
        processes: [{ pid: 1, role: "proxy" as const, rssKib, cpuSeconds: 0 }],
      };
    });

  it.each([
    [0.049, true],
    [-0.3, true],
    [0.051, false],
  ])("judges growth by %d of the plateau", (share, holds) => {
    expect(judgeMemory(grown(share), phases).holds).toBe(holds);
  });

  it("does not hold without a sample in each window", () => {
    expect(judgeMemory([], phases).holds).toBe(false);
  });
});

describe("parseOptions()", () => {
  it("has every part unless it is left out", () => {
    const parts = parseOptions(["--without", "kills,reloads"])?.parts;
    expect([parts?.has("kills"), parts?.has("reloads"), parts?.has("routes")]).toEqual([false, false, true]);
  });

  it.each([
    [["--sessions", "10.5"], "Cannot use --sessions 10.5"],
    [["--minutes", ""], "Cannot use --minutes "],
    [["--workers", "0"], "Cannot use --workers 0"],
    [["--without", "sleep"], "Cannot leave out sleep"],
  ])("refuses %j", (args, message) => {
    expect(() => parseOptions(args)).toThrow(message);
  });
});

describe("a configuration of the soak", () => {
  const values = { port: 1, route: ["direct-ws", "direct-tcp"] };
  const users = [{ user: "anna", secret: "00".repeat(16), maxConnections: 5 }];

  it("is a file", () => {
    expect(Bun.TOML.parse(formatToml(values, users))).toEqual({
      ...values,
      users: { anna: { secret: "00".repeat(16), "max-connections": 5 } },
    });
  });

  it("is flags, too", () => {
    const flags = ["--port", "1", "--route", "direct-ws", "--route", "direct-tcp"];
    expect(formatFlags(values, users)).toEqual([...flags, "--secret", `anna:${"00".repeat(16)}`]);
  });
});
