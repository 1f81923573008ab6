import { describe, expect, test } from "bun:test";
import { readTgWsProxyConfig } from "../../src/config/tg-ws-proxy-config.ts";

const read = (json: unknown) => {
  const { settings, ...rest } = readTgWsProxyConfig("config.json", json);
  return { ...rest, settings: Object.fromEntries(settings) };
};

describe("readTgWsProxyConfig()", () => {
  test("takes over what the applications write", () => {
    const { settings, secret, left, issues } = read({
      port: 1443,
      host: "127.0.0.1",
      secret: "00112233445566778899aabbccddeeff",
      dc_ip: ["2:149.154.167.220", "4:149.154.167.220"],
      verbose: false,
      check_updates: true,
      log_max_mb: 5,
      buf_kb: 256,
      pool_size: 4,
      cfproxy: true,
      cfproxy_user_domain: [],
      cfproxy_worker_domain: "w.example; v.example",
      ws_keepalive_interval: 30,
      language: "auto",
      novelty: 1,
    });
    expect(settings).toEqual({
      port: ["1443"],
      host: ["127.0.0.1"],
      dcIp: ["2:149.154.167.220", "4:149.154.167.220"],
      bufKb: ["256"],
      poolSize: ["4"],
      cfproxyWorkerDomain: ["w.example", "v.example"],
    });
    expect(secret).toBe("00112233445566778899aabbccddeeff");
    expect(left).toEqual([
      "check_updates (not needed here)",
      "ws_keepalive_interval (not needed here)",
      "language (not needed here)",
      "novelty (not known)",
      "log_max_mb (there is no log file without log-file)",
    ]);
    expect(issues).toEqual([]);
  });

  test("takes over the names of the engine, too", () => {
    expect(
      read({
        dc_redirects: { 2: "192.0.2.7", 4: "192.0.2.8" },
        buffer_size: 131_072,
        fallback_cfproxy: false,
        cfproxy_user_domains: ["a.example"],
        fake_tls_domain: "example.com",
        proxy_protocol: true,
        force_test_dc: true,
        verbose: true,
        log_file: "proxy.log",
        log_max_mb: 1.5,
      }).settings,
    ).toEqual({
      dcIp: ["2:192.0.2.7", "4:192.0.2.8"],
      bufKb: ["128"],
      noCfproxy: [""],
      cfproxyDomain: ["a.example"],
      fakeTlsDomain: ["example.com"],
      proxyProtocol: [""],
      forceTestDc: [""],
      verbose: [""],
      logFile: ["proxy.log"],
      logMaxMb: ["1.5"],
    });
  });

  test("leaves out what is empty or turned off", () => {
    const { settings, left, secret } = read({
      secret: "",
      fake_tls_domain: "",
      host: null,
      cfproxy_user_domain_enabled: false,
      cfproxy_user_domain: ["a.example"],
      cfproxy_worker_enabled: true,
      cfproxy_worker_domain: ["w.example"],
    });
    expect(settings).toEqual({ cfproxyWorkerDomain: ["w.example"] });
    expect(left).toEqual(["cfproxy_user_domain (turned off)"]);
    expect(secret).toBeUndefined();
  });

  test("says what has the wrong type, or is there twice", () => {
    const { issues } = read({
      port: [1],
      secret: 5,
      cfproxy: "yes",
      dc_ip: { 2: 3 },
      buf_kb: 4,
      buffer_size: 4096,
    });
    expect(issues.map(({ path, message }) => `${path}: ${message}`)).toEqual([
      "config.json: port: neither a text nor a number",
      "config.json: secret: not a text",
      "config.json: cfproxy: neither true nor false",
      "config.json: dc_ip: not a table of addresses",
      "config.json: buffer_size: says the same as buf_kb",
    ]);
  });

  test.each([[null], [5], ["x"], [[]], [true]])("refuses %j, which has no settings", (json) => {
    expect(read(json).issues).toEqual([{ path: "config.json", message: "not an object with settings" }]);
  });
});
