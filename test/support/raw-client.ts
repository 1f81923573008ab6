import type { Socket } from "node:net";
import { ClientStream, type ClientStreamOptions, openTcp } from "./client-stream.ts";

/** How a {@link RawClient} introduces itself. */
export interface RawClientOptions extends ClientStreamOptions {
  readonly port: number;
  /** The address of this machine to come from, such as 127.0.0.2. */
  readonly localAddress?: string;
  /** The address that it says it has, in a PROXY header before everything else. */
  readonly from?: string;
  /** The address to connect to, when it is not 127.0.0.1. */
  readonly host?: string;
}

/** A client of obfuscated2; intermediate, unless said. */
export class RawClient extends ClientStream {
  private constructor(socket: Socket, options: RawClientOptions) {
    super(socket, { ...options, transport: options.transport ?? "intermediate" });
  }

  /** Connects, and sends nothing yet. */
  static async connect(options: RawClientOptions): Promise<RawClient> {
    return new RawClient(await openTcp(options.port, options), options);
  }

  /** Connects and sends the init. */
  static async open(options: RawClientOptions): Promise<RawClient> {
    const client = await RawClient.connect(options);
    if (options.from !== undefined)
      client.write(Buffer.from(`PROXY TCP4 ${options.from} 127.0.0.1 4000 443\r\n`));
    client.write(client.init);
    return client;
  }

  /** Encrypts and sends `payload` as one packet. @returns Whether there is room for more. */
  sendPacket(payload: Uint8Array, options?: { readonly quickAck?: boolean }): boolean {
    return this.write(this.encryptPacket(payload, options));
  }

  protected override onData(chunk: Uint8Array): void {
    this.decrypt(chunk);
  }
}
