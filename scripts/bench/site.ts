/** A web site that has nothing but its TLS handshake to show. Arguments: port, certificate file, key file. */
const [port, certificate = "", key = ""] = process.argv.slice(2);

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  tls: { cert: Bun.file(certificate), key: Bun.file(key) },
  fetch: () => new Response("hello\n"),
});
process.stdin.on("end", () => process.exit());
process.stdin.resume();
