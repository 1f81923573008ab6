import { describe, expect, test } from "bun:test";
import { compareConfigs } from "../../src/config/compare.ts";

const user = (name: string, settings: object) => ({ name, settings });

describe("compareConfigs()", () => {
  test("finds nothing where nothing has changed", () => {
    const raw = { port: ["1"], users: [user("a", { secret: "x", enabled: "true" })] };
    const same = { port: ["1"], verbose: [], users: [user("a", { enabled: "true", secret: "x" })] };
    expect(compareConfigs(raw, same)).toEqual({
      live: [],
      atStart: [],
      users: { added: [], removed: [], changed: [] },
    });
  });

  test("tells apart what applies at once and what needs a start", () => {
    const { live, atStart } = compareConfigs(
      { port: ["1"], route: ["direct-ws"], logFile: ["a"] },
      { port: ["2"], route: ["direct-ws", "cf-domain"], verbose: [""], logFile: ["a"] },
    );
    expect(live).toEqual(["route", "verbose"]);
    expect(atStart).toEqual(["port"]);
  });

  test("finds users that came, went and changed; one with a new secret went and came", () => {
    const { users } = compareConfigs(
      { users: [user("a", { secret: "1" }), user("b", { secret: "2" }), user("c", { secret: "3" })] },
      {
        users: [
          user("b", { secret: "2", "rate-kb": "5" }),
          user("c", { secret: "4" }),
          user("d", { secret: "5" }),
        ],
      },
    );
    expect(users).toEqual({ added: ["c", "d"], removed: ["a", "c"], changed: ["b"] });
  });
});
