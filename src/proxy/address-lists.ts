import type { NetworkSet } from "../core/network-set.ts";
import type { AddressFilter } from "./entrance.ts";

/** Who may come by the address: nobody who is denied, and where some are allowed, nobody else. */
export class AddressLists implements AddressFilter {
  readonly #allow: NetworkSet | undefined;
  readonly #deny: NetworkSet | undefined;

  /** @param lists One that is `undefined` was not given: everybody is allowed, or nobody is denied. */
  constructor({
    allow,
    deny,
  }: { readonly allow: NetworkSet | undefined; readonly deny: NetworkSet | undefined }) {
    this.#allow = allow;
    this.#deny = deny;
  }

  allows(address: string): boolean {
    return this.#deny?.contains(address) !== true && this.#allow?.contains(address) !== false;
  }
}
