import type { ChannelSink } from "../../src/channel/channel.ts";
import { type DoctorOptions, runDoctor } from "../../src/cli/doctor.ts";
import type { ProgressSink } from "../../src/cli/doctor-progress.ts";
import type { RouteError } from "../../src/core/errors.ts";
import type { Inspection } from "../../src/net/inspect-endpoint.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import type { Route, RouteId, Upstream, Way, WayAddress } from "../../src/upstream/route.ts";
import { type MemoryChannel, memoryChannelPair, plainLink, settle } from "../support/memory-channel.ts";
import { concat, encodePacket, takePacket } from "../support/packets.ts";
import { tlBytes, tlInt, tlLong } from "../support/tl.ts";

export const DC2: DcTarget = { dc: 2, media: false, test: false };
export const DC2_MEDIA: DcTarget = { dc: 2, media: true, test: false };
export const DC5: DcTarget = { dc: 5, media: false, test: false };

/** The far end of a plain link: answers every question until `limit` bytes are out. */
class PlainDc implements ChannelSink {
  readonly #channel: MemoryChannel;
  readonly #limit: number;
  #sent = 0;

  constructor(channel: MemoryChannel, limit: number) {
    this.#channel = channel;
    this.#limit = limit;
    channel.attach(this);
  }

  onChunk(chunk: Uint8Array): void {
    const payload = takePacket("intermediate", chunk)?.packet.payload;
    if (payload === undefined || this.#sent >= this.#limit) return;
    const nonce = payload.subarray(24);
    const vector = concat(tlInt(0x1cb5c415), tlInt(1), tlLong(1n));
    const body = concat(tlInt(0x05162463), nonce, new Uint8Array(16), tlBytes(new Uint8Array(8)), vector);
    const answer = encodePacket("intermediate", concat(tlLong(0n), tlLong(1n), tlInt(body.length), body));
    this.#sent += answer.length;
    this.#channel.write(answer);
  }

  onEnd(): void {}

  onDrain(): void {}

  onClose(): void {}
}

/** What a fake route does when one of its ways is opened. */
export type Manner = "answers" | "silent" | "freezes" | "hangs" | RouteError | TypeError;

/** Counts what is open at a time, in all and by host. */
export class Gauge {
  most = 0;
  readonly mostAt = new Map<string, number>();
  opened = 0;
  readonly channels: MemoryChannel[] = [];
  #open = 0;
  readonly #openAt = new Map<string, number>();

  enter(host: string): void {
    this.opened += 1;
    this.#open += 1;
    this.most = Math.max(this.most, this.#open);
    const here = (this.#openAt.get(host) ?? 0) + 1;
    this.#openAt.set(host, here);
    this.mostAt.set(host, Math.max(this.mostAt.get(host) ?? 0, here));
  }

  leave(host: string): void {
    this.#open -= 1;
    this.#openAt.set(host, (this.#openAt.get(host) ?? 1) - 1);
  }
}

/** A route whose ways are given by host; `name` lets tests tell its ways apart. */
export function fakeRoute(
  id: RouteId,
  options: {
    readonly hosts?: (target: DcTarget) => readonly string[];
    readonly manner?: (target: DcTarget, host: string) => Manner;
    readonly gauge?: Gauge;
  } = {},
): Route {
  const { hosts = () => ["192.0.2.1"], manner = () => "answers", gauge = new Gauge() } = options;
  return {
    id,
    ways: (target) =>
      hosts(target).map((host): Way => {
        const address: WayAddress = { host, port: 443, webSocket: undefined };
        const open = async (): Promise<Upstream> => {
          gauge.enter(host);
          await settle(3);
          const what = manner(target, host);
          if (what instanceof Error) {
            gauge.leave(host);
            throw what;
          }
          if (what === "hangs") return Promise.withResolvers<Upstream>().promise;
          const [channel, far] = memoryChannelPair();
          gauge.channels.push(channel);
          const limits = { answers: Number.POSITIVE_INFINITY, silent: 0, freezes: 16 * 1024 };
          new PlainDc(far, limits[what]);
          const destroy = channel.destroy.bind(channel);
          channel.destroy = () => {
            gauge.leave(host);
            destroy();
          };
          return { channel, link: plainLink, warm: false };
        };
        return { route: id, endpoint: `${host}:443`, group: host, address, open };
      }),
  };
}

/** An inspection without a fault. */
export const nothingFound: Inspection = {
  stages: [{ name: "tcp", ms: 12.34, error: undefined, detail: undefined }],
  location: undefined,
  retryAfterMs: undefined,
};

/** Keeps what it hears, without the times. */
export class RecordingProgress implements ProgressSink {
  readonly calls: string[] = [];

  advanced(done: number, total: number): void {
    this.calls.push(`${done}/${total}`);
  }

  finished(text: string, outcome: "good" | "bad"): void {
    this.calls.push(`${outcome} ${text.replaceAll(/\d+ ms/g, "N ms")}`);
  }

  stop(): void {
    this.calls.push("stop");
  }
}

/** A diagnosis that was started. */
export interface Run {
  readonly code: Promise<number>;
  readonly printed: string[];
  readonly progress: RecordingProgress;
}

/** Starts a diagnosis of DC 2 whose every address can be inspected. */
export function start(options: Partial<DoctorOptions> & Pick<DoctorOptions, "routes">): Run {
  const printed: string[] = [];
  const progress = new RecordingProgress();
  const code = runDoctor({
    version: "1.2.3",
    targets: [DC2, DC2_MEDIA],
    deep: false,
    json: false,
    inspect: () => Promise.resolve(nothingFound),
    signal: new AbortController().signal,
    out: (text) => printed.push(text),
    progress,
    style: { color: false, width: 100 },
    timeouts: { probeMs: 4_000, stallMs: 400 },
    ...options,
  });
  return { code, printed, progress };
}

/** Times differ from run to run. */
export const withoutTimes = (text: string): string =>
  text
    .replaceAll(/(?<= )\d+(?= *\d* {2,}ok)/g, (digits) => "N".padStart(digits.length))
    .replaceAll(/\d+ ms/g, "N ms");
