import { describe, expect, test } from "bun:test";
import { addUser, changeUser, removeUser, userNames } from "../../src/config/edit-users.ts";

const FILE = `# mine
port = 8443 # why

# the family
[users.alice] # her
secret = 'a' # s
expires = 2027-01-31
# of alice

# bob pays
[users."b.b"]
secret = "b"
quota-gb = 5 # GB
`;

const users = (text: string): unknown => (Bun.TOML.parse(text) as { users?: unknown }).users;

describe("addUser()", () => {
  test("puts a table at the end, and leaves the rest alone", async () => {
    const text = await addUser(FILE, "carol", { secret: "c", "quota-gb": "1.5", expires: "2027-02-28" });
    expect(text).toBe(`${FILE}\n[users.carol]\nsecret = "c"\nquota-gb = 1.5\nexpires = 2027-02-28\n`);
  });

  test("makes the first one", async () => {
    expect(await addUser("", "a.b", { secret: "x" })).toBe('[users."a.b"]\nsecret = "x"\n');
    expect(await addUser("port = 1", "a", { secret: "x" })).toBe('port = 1\n\n[users.a]\nsecret = "x"\n');
  });

  test("keeps the line ends of Windows", async () => {
    const text = await addUser("port = 1\r\n", "a", { secret: "x" });
    expect(text).toBe('port = 1\r\n\r\n[users.a]\r\nsecret = "x"\r\n');
  });

  test.each([
    ["users = { alice = { secret = 'a' } } # x\n", "# x"],
    ["users = {}\nport = 1 # p\n", "# p"],
    ["# c\nusers.alice.secret = 'a'\n", "# c"],
    ["[users]\nalice = { secret = 'a' } # x\n", "# x"],
    ["[users.alice]\nsecret = 'a'\n[other] # o\nb = 1\n", "# o"],
  ])("understands users that are written as %j", async (text, comment) => {
    const before = (users(text) ?? {}) as object;
    const after = await addUser(text, "bob", { secret: "b", "rate-kb": "7" });
    expect(users(after)).toEqual({ ...before, bob: { secret: "b", "rate-kb": 7 } });
    expect(after).toContain(comment);
  });

  test("leaves a time in UTC as it is", async () => {
    const text = await addUser("", "a", { secret: "x", expires: "2027-01-31T12:00:00Z" });
    expect(text).toContain("expires = 2027-01-31T12:00:00Z\n");
  });
});

describe("changeUser()", () => {
  test("changes, adds and takes out settings, with the comments kept", async () => {
    const text = await changeUser(FILE, "b.b", {
      "quota-gb": "80",
      enabled: "false",
    });
    expect(users(text)).toMatchObject({ "b.b": { secret: "b", "quota-gb": 80, enabled: false } });
    for (const comment of FILE.match(/#.*/g) ?? []) expect(text).toContain(comment);
    const without = await changeUser(text, "b.b", { "quota-gb": undefined });
    expect(users(without)).toEqual({
      ...(users(FILE) as object),
      "b.b": { secret: "b", enabled: false },
    });
  });

  test("puts a new setting below the others of its table, not below the next comment", async () => {
    const text = await changeUser(FILE, "alice", { enabled: "false", "quota-gb": "2" });
    expect(text).toBe(
      FILE.replace("expires = 2027-01-31\n", "expires = 2027-01-31\nenabled = false\nquota-gb = 2\n"),
    );
  });

  test.each(["\t", "    "])("begins it as the others do: with %j", async (indent) => {
    const text = `[users.a]\n${indent}secret = 'x' # s\n\n[users.b]\n${indent}secret = 'y'\n`;
    expect(await changeUser(text, "a", { "rate-kb": "5", enabled: "false" })).toBe(
      text.replace("# s\n", `# s\n${indent}enabled = false\n${indent}rate-kb = 5\n`),
    );
  });

  test.each([
    ["quota-gb = 5", "quota-gb = 80"],
    ["quota-gb\t=\t5\t# GB", "quota-gb\t=\t80\t# GB"],
    ["quota-gb = 5      # GB", "quota-gb = 80     # GB"],
    ["quota-gb = 5  # GB", "quota-gb = 80 # GB"],
    ["quota-gb=+5_000.0 #a = b # c", "quota-gb=80 #a = b # c"],
    ["quota-gb = 5e0   ", "quota-gb = 80   "],
    ['"quota-gb" = 5', '"quota-gb" = 80'],
  ])("touches nothing but the value of %j, whatever the rest looks like", async (before, after) => {
    for (const eol of ["\n", "\r\n"]) {
      const head = `port  =  5\t#  x${eol}[ "users" . 'a' ]   # y\n  secret =\t'x'  # z${eol}`;
      const tail = `${eol}# next\n[users.b]${eol}secret = "y"`;
      const whole = `${head}${before}${tail}`;
      expect(await changeUser(whole, "a", { "quota-gb": "80" })).toBe(`${head}${after}${tail}`);
      const out = await changeUser(whole, "a", { "quota-gb": undefined });
      expect(out).toBe(`${head}${tail.slice(eol.length)}`);
    }
  });

  test("changes texts, dates and switches in their places", async () => {
    const text = "[users.a]\nsecret = 'x' # s\nenabled = true\nexpires = 2027-01-31T00:00:00Z # e\n";
    const changes = { secret: "y", enabled: "false", expires: "2027-02-01" };
    expect(await changeUser(text, "a", changes)).toBe(
      '[users.a]\nsecret = "y" # s\nenabled = false\nexpires = 2027-02-01 # e\n',
    );
    const long = '[users.a]\nsecret = """\nx"""\nexpires = "2027-01-31"\n';
    expect(users(await changeUser(long, "a", changes))).toMatchObject({ a: { secret: "y", enabled: false } });
  });

  test("does so in other ways to write users, too", async () => {
    for (const text of ["users.a.secret = 'x'\n", "users = { a = { secret = 'x' } }\n"]) {
      expect(users(await changeUser(text, "a", { enabled: "false" }))).toEqual({
        a: { secret: "x", enabled: false },
      });
    }
  });

  test("leaves what it cannot change", async () => {
    const attempt = changeUser("port = 1\n", "nobody", { enabled: "false" });
    await expect(attempt).rejects.toThrow(
      "Cannot change the configuration file: its layout is not understood",
    );
  });
});

describe("removeUser()", () => {
  test("takes out one table, and the last with all of its table", async () => {
    const one = await removeUser(FILE, "alice");
    expect(users(one)).toEqual({ "b.b": { secret: "b", "quota-gb": 5 } });
    expect(one).toBe(FILE.replace(/\[users.alice\][\s\S]*# of alice\n\n/, "\n"));
    const none = await removeUser(one, "b.b");
    expect(Bun.TOML.parse(none)).toEqual({ port: 8443 });
    expect(none).toContain("# mine");
  });

  test.each([
    ["[users.a]\nsecret = 'a'\n# of b\n[users.b]\nsecret = 'b'\n", "# of b\n[users.b]\nsecret = 'b'\n"],
    ["[users.a]\nsecret = 'a'\n#quota-gb = 1\n\n[users.b]\nsecret = 'b'\n", "[users.b]\nsecret = 'b'\n"],
    [
      "port = 1\r\n\r\n[users.a]\r\nsecret = 'a'\r\n\r\n[users.b]\r\nsecret = 'b'",
      "port = 1\r\n\r\n[users.b]\r\nsecret = 'b'",
    ],
    ["users.a.secret = 'a'\nusers.b.secret = 'b'\n", "users.b.secret = 'b'\n"],
    ["[users.a]", ""],
    ["  [users.a]\n  secret = 'a'\n  [users.b]\n  secret = 'b'\n", "  [users.b]\n  secret = 'b'\n"],
    [
      "[users]\n# who pays\n[users.a]\nsecret = 'a'\n\n# the next one\n",
      "[users]\n# who pays\n\n# the next one\n",
    ],
  ])("leaves the rest of %j", async (text, left) => {
    expect(await removeUser(text, "a")).toBe(left);
  });

  test("works among a thousand users", async () => {
    const text = Array.from({ length: 1_000 }, (_, at) => `[users.u${at}]\nsecret = "${at}" # ${at}\n`).join(
      "",
    );
    const start = performance.now();
    expect(userNames("f", await removeUser(text, "u500"))).toHaveLength(999);
    expect(performance.now() - start).toBeLessThan(5_000);
  });
});
