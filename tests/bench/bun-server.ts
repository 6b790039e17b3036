// The peer that the webhook workload is compared with: what a developer would write by hand with Bun, a file per
// tenant, opened for the request and closed after it, every insert on disk before the answer.
//
//   bun bun-server.ts <folder>      listens on a free loopback port and says so, as one JSON line, on stderr

import { Database } from "bun:sqlite";
import { join } from "node:path";

const folder = process.argv[2];
if (!folder) throw new Error("usage: bun bun-server.ts <folder>");

const route = /^\/t\/([a-z0-9][a-z0-9-]{0,62})\/fn$/;

function open(tenant: string): Database {
  const db = new Database(join(folder, `${tenant}.db`), { create: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run("PRAGMA synchronous = FULL");
  db.run(
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, name TEXT NOT NULL, message TEXT NOT NULL, " +
      "signed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))",
  );
  return db;
}

function sign(tenant: string, entry: { name: string; message: string }): Response {
  const db = open(tenant);
  try {
    const { lastInsertRowid } = db
      .query("INSERT INTO entries (name, message) VALUES (?, ?)")
      .run(entry.name, entry.message);
    const row = db.query("SELECT id, name, message, signed_at FROM entries WHERE id = ?").get(lastInsertRowid);
    return Response.json(row, { status: 201 });
  } finally {
    db.close();
  }
}

function list(tenant: string): Response {
  const db = open(tenant);
  try {
    const rows = db.query("SELECT id, name, message, signed_at FROM entries ORDER BY id DESC LIMIT 100").all();
    return Response.json(rows);
  } finally {
    db.close();
  }
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/hello") return new Response("Hello from Dormouse\n");
    const tenant = route.exec(pathname)?.[1];
    if (!tenant) return new Response("not found\n", { status: 404 });
    if (request.method === "GET") return list(tenant);
    if (request.method !== "POST") return new Response("method not allowed\n", { status: 405 });
    return sign(tenant, await request.json());
  },
});

console.error(JSON.stringify({ message: "listening", public: `127.0.0.1:${server.port}` }));
