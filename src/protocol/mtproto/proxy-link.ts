import { formatSecret, type SecretForm } from "./secret.ts";

/** Where clients find a proxy. */
export interface ProxyAddress {
  /** A name or an address; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** 16 bytes. */
  readonly key: Uint8Array;
  readonly form: SecretForm;
}

/** The two links that set a Telegram app up to use a proxy. */
export interface ProxyLinks {
  /** Opens the app directly. */
  readonly tg: string;
  /** Opens anywhere, through a web page. */
  readonly https: string;
}

/** Formats the links for `address`; those for fake TLS have its domain within the secret. @see https://core.telegram.org/api/links#mtproxy-links */
export function formatProxyLinks({ host, port, key, form }: ProxyAddress): ProxyLinks {
  const query = `server=${encodeURIComponent(host)}&port=${port}&secret=${formatSecret(key, form)}`;
  return { tg: `tg://proxy?${query}`, https: `https://t.me/proxy?${query}` };
}
