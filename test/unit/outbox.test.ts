import { describe, expect, test } from "bun:test";
import { Outbox } from "../../src/workers/outbox.ts";

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe("Outbox", () => {
  test("sends what was posted in one turn together, in order", async () => {
    const sent: number[][] = [];
    const outbox = new Outbox<number>((batch) => sent.push([...batch]));
    for (const value of [1, 2, 3]) outbox.post(value);
    expect(sent).toEqual([]);
    await turn();
    outbox.post(4);
    await turn();
    expect(sent).toEqual([[1, 2, 3], [4]]);
  });

  test("sends at once when it is flushed, and nothing twice", async () => {
    const sent: number[][] = [];
    const outbox = new Outbox<number>((batch) => sent.push([...batch]));
    outbox.post(1);
    outbox.flush();
    expect(sent).toEqual([[1]]);
    await turn();
    expect(sent).toEqual([[1]]);
  });

  test("keeps the order when a message is posted while a batch is sent", async () => {
    const sent: number[] = [];
    const outbox: Outbox<number> = new Outbox((batch) => {
      if (batch.includes(1)) outbox.post(2);
      sent.push(...batch);
    });
    outbox.post(1);
    await turn();
    await turn();
    expect(sent).toEqual([1, 2]);
  });

  test("lets messages wait that nobody waits for, but not for long, and never out of order", async () => {
    const sent: number[][] = [];
    const outbox = new Outbox<number>((batch) => sent.push([...batch]));
    outbox.postLater(1);
    await turn();
    await turn();
    expect(sent).toEqual([]);
    outbox.post(2);
    await turn();
    expect(sent).toEqual([[1, 2]]);
    outbox.postLater(3);
    await Bun.sleep(60);
    expect(sent).toEqual([[1, 2], [3]]);
  });
});
