/** The part of an `AbortSignal` that portable code needs; any `AbortSignal` is one. */
export interface Cancel {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}
