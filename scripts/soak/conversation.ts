import { openInit } from "../../test/support/obfuscated2.ts";
import { answerReqPq } from "./res-pq.ts";
import { CorruptionError, KIND, type Message, MessageReader, MessageWriter } from "./wire.ts";

/** The connection that a {@link Conversation} has, whatever carries it. */
export interface Line {
  /** Sends a piece. @returns Whether there is room for another one. */
  send(piece: Uint8Array): boolean;
  pause(): void;
  resume(): void;
  /** Breaks it off. */
  drop(): void;
}

const INIT_LENGTH = 64;

/** The data centre's side of one stream: checks what comes, and answers it in order. */
export class Conversation {
  /** Which session of the soak it belongs to; `undefined` until it has said so. */
  session: number | undefined;
  readonly #line: Line;
  readonly #onTrouble: (error: Error) => void;
  #init = Buffer.alloc(0);
  #up: { update(bytes: Uint8Array): Uint8Array } | undefined;
  #reader: MessageReader | undefined;
  #writer: MessageWriter | undefined;
  #nextSeq: number | undefined;
  #room = true;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param onTrouble Hears of what no client of the soak has sent. */
  constructor(line: Line, onTrouble: (error: Error) => void) {
    this.#line = line;
    this.#onTrouble = onTrouble;
  }

  onBytes(bytes: Uint8Array): void {
    try {
      if (this.#up === undefined) this.#readInit(bytes);
      else this.#reader?.push(this.#up.update(bytes));
    } catch (error) {
      this.#onTrouble(error instanceof Error ? error : new Error(String(error)));
      this.drop();
    }
  }

  onDrain(): void {
    this.#room = true;
    this.#send();
  }

  /** The connection is gone. */
  onClose(): void {
    clearTimeout(this.#timer);
  }

  drop(): void {
    clearTimeout(this.#timer);
    this.#line.drop();
  }

  #readInit(bytes: Uint8Array): void {
    this.#init = Buffer.concat([this.#init, bytes]);
    if (this.#init.length < INIT_LENGTH) return;
    const { up, down, transport } = openInit(this.#init.subarray(0, INIT_LENGTH), undefined);
    this.#up = up;
    this.#writer = new MessageWriter(transport, down);
    this.#reader = new MessageReader(transport, {
      onMessage: (message) => this.#answer(message),
      onPlain: (payload) => this.#answerPlain(payload),
    });
    const rest = this.#init.subarray(INIT_LENGTH);
    if (rest.length > 0) this.#reader.push(up.update(rest));
  }

  #answer(message: Message): void {
    const { session, seq, argument } = message;
    const due = this.#nextSeq ?? seq;
    if (seq !== due || session !== (this.session ?? session)) {
      throw new CorruptionError(
        `session ${session}, message ${seq}: message ${due} of ${this.session} was due`,
      );
    }
    this.session = session;
    this.#nextSeq = seq + 1;
    if (message.kind === KIND.stall) {
      this.#line.pause();
      this.#timer = setTimeout(() => this.#line.resume(), argument);
      return;
    }
    this.#writer?.add(answerOf(message));
    this.#send();
  }

  #answerPlain(payload: Uint8Array): void {
    const answer = answerReqPq(payload);
    if (answer === undefined) return;
    this.#writer?.addPlain(answer);
    this.#send();
  }

  /** What a slow reader does not take is not made. */
  #send(): void {
    while (this.#room) {
      const piece = this.#writer?.next();
      if (piece === undefined) return;
      this.#room = this.#line.send(piece);
    }
  }
}

function answerOf(message: Message): Message {
  const { kind, session, seq, argument } = message;
  if (kind === KIND.fetch) return { kind: KIND.data, session, seq, argument, bodyLength: argument };
  if (kind === KIND.store) return { kind: KIND.stored, session, seq, argument, bodyLength: 0 };
  return message;
}
