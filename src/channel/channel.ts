/**
 * Who listens to a {@link Channel}. Every call comes from the event loop, never from inside a call that the
 * sink itself made to the channel.
 */
export interface ChannelSink {
  /** Bytes arrived. They belong to the sink, which may keep, change or `release` them. */
  onChunk(chunk: Uint8Array): void;
  /** The peer will send nothing more; it may still read. */
  onEnd(): void;
  /** The channel was congested and is not any more. */
  onDrain(): void;
  /** The channel is gone, both ways. Comes once, and last. */
  onClose(error?: Error): void;
}

/**
 * Ordered bytes both ways, with backpressure: TCP, a WebSocket, fake TLS, or memory.
 *
 * What arrives before the first {@link Channel.attach} waits for it, bounded by pausing the source.
 */
export interface Channel {
  /** Makes `sink` the only listener from now on. A channel that is closed already says so on the next turn. */
  attach(sink: ChannelSink): void;
  /**
   * Sends `bytes`, which are only borrowed for the call. What the kernel does not take is queued; the
   * caller stops writing while {@link Channel.congested}. On a WebSocket, one call is one message.
   */
  write(bytes: Uint8Array): void;
  /** More is queued than should be: an `onDrain` will follow. */
  readonly congested: boolean;
  /** Bytes that wait to be sent. */
  readonly queuedBytes: number;
  /** Asks the source to stop; a chunk that is already on its way may still come. */
  pause(): void;
  resume(): void;
  /** Sends what is queued, then tells the peer that nothing more comes. Reading goes on. */
  end(): void;
  /** Sends what is queued, then closes. What still arrives is of no interest. */
  close(): void;
  /** Sends what is queued, then breaks the connection, so that the peer sees it broken and not ended. */
  reset(): void;
  /** Drops the connection and what is queued. */
  destroy(): void;
  /** Makes sure that a silent peer is still there, where the protocol has a way; otherwise does nothing. */
  ping(): void;
  /** Whether {@link Channel.ping} asks anything. */
  readonly answersPings: boolean;
  /** Nothing shows that the peer is still there: the last ping has no answer, or there is no way to ask. */
  readonly unanswered: boolean;
}

/** A channel that sends several pieces at once, as its own bytes have to be wrapped by somebody else's. */
export interface GatherChannel extends Channel {
  /** As {@link Channel.write} of all `parts` in their order, in one call of the operating system, without joining them. */
  writeAll(parts: readonly Uint8Array[]): void;
  /** Has the operating system look now and then whether a silent peer is still there. */
  keepAlive(): void;
}
