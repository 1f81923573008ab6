import { describe, expect, test } from "bun:test";
import {
  ConfigError,
  FormatError,
  HandshakeError,
  NoRouteError,
  RouteError,
  StartError,
  TgwsError,
} from "../../src/core/errors.ts";

describe("TgwsError", () => {
  test("carries class name, code and cause in every subclass", () => {
    const cause = new Error("below");
    const errors = [
      new HandshakeError("CLOSED", "text", cause),
      new RouteError("TLS", "text", { cause }),
      new StartError("FILE", "text", "hint", cause),
    ];
    expect(errors.map(({ name, code }) => `${name} ${code}`)).toEqual([
      "HandshakeError CLOSED",
      "RouteError TLS",
      "StartError FILE",
    ]);
    for (const error of errors) {
      expect(error).toBeInstanceOf(TgwsError);
      expect(error.cause).toBe(cause);
    }
  });

  test("has no cause where there was none", () => {
    expect("cause" in new HandshakeError("CLOSED", "text")).toBe(false);
    expect("cause" in new RouteError("TIMEOUT", "text")).toBe(false);
    expect("cause" in new FormatError("BAD_VALUE", "text")).toBe(false);
  });
});

describe("RouteError", () => {
  test("keeps the HTTP status", () => {
    expect(new RouteError("STATUS", "text", { status: 429 }).status).toBe(429);
    expect(new RouteError("DNS", "text").status).toBeUndefined();
  });
});

describe("NoRouteError", () => {
  test("names the target and says what every attempt failed on, in order", () => {
    const attempts = [
      { route: "direct-ws", endpoint: "one", error: new RouteError("TIMEOUT", "nothing came") },
      { route: "direct-ws", endpoint: "two", error: new RouteError("REFUSED", "connection refused") },
    ];
    const error = new NoRouteError("DC 4 media", attempts);
    expect(error.attempts).toBe(attempts);
    expect(error.message).toBe(
      "Cannot reach DC 4 media: direct-ws one: nothing came; direct-ws two: connection refused",
    );
  });

  test("names endpoints of a route that failed alike together, two of them at most", () => {
    const refused = (endpoint: string) => ({
      route: "cf-domain",
      endpoint,
      error: new RouteError("DNS", "the name has no address"),
    });
    const other = {
      route: "direct-tcp",
      endpoint: "one",
      error: new RouteError("DNS", "the name has no address"),
    };
    const attempts = [refused("a"), other, refused("b"), refused("c"), refused("a"), refused("d")];
    expect(new NoRouteError("DC 1", attempts).message).toBe(
      "Cannot reach DC 1: cf-domain a, b and 2 more: the name has no address; direct-tcp one: the name has no address",
    );
  });

  test("says so when no route serves the target", () => {
    expect(new NoRouteError("DC 3", []).message).toBe("Cannot reach DC 3: no route serves it");
  });
});

describe("ConfigError", () => {
  test("puts every issue into its message", () => {
    const error = new ConfigError([
      { path: "--port", message: "not a number" },
      { path: "--secret", message: "too short", hint: "16 bytes" },
    ]);
    expect(error.message).toBe("--port: not a number\n--secret: too short");
    expect(error.issues).toHaveLength(2);
  });
});
