//! The bounds of the node, in one place: what is fixed, and the default of what an operator can set. Only what no
//! other room needs to know, such as SQLite's own limits, stands in its room.
//!
//! The unit is in the name. A bound that an operator can set appears in [`crate::config`] under the same name in
//! lower case.

use std::time::Duration;

/// Largest request body. Akamai and Fly replay accept less; a webhook rarely has more than 1 MB.
pub const BODY_BYTES_MAX: u64 = 10 << 20;
/// Largest response body: some 20 times what a page has, and what a client with 20 Mbit/s takes within the wall time.
pub const RESPONSE_BYTES_MAX: u64 = 64 << 20;
/// How long a client may move nothing of a body, in either direction, while it is waited for. A third of the wall time:
/// what a client holds is a turn.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How fast a client must move a body in the long run. A modem of 1990 is faster.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 1 << 10;
/// Most header fields of a request.
pub const HEADERS_MAX: usize = 100;
/// Largest sum of header names and values of a request.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// What hyper itself may buffer of a request head; beyond it hyper answers 431 before the edge sees the request.
pub const HEAD_BUFFER_BYTES: usize = 64 << 10;
/// How long a client may take to send a request head, or to stay silent between two requests.
pub const HEADER_READ_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a trusted proxy may take to send the header of the PROXY protocol. It has it before it connects.
pub const PROXY_HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// Open connections on the public listener.
pub const CONNECTIONS_MAX: u32 = 4_096;
/// The part of the node's connections that one client address may have open.
pub const CLIENT_CONNECTIONS_PART: u32 = 8;
/// The part of the node's requests at the same time that one client address may have in flight.
pub const CLIENT_REQUESTS_PART: u32 = 2;
/// The least of either: a browser has six connections to a host, and several may share an address.
pub const CLIENT_SHARE_MIN: u32 = 32;
/// How often it is logged at most that a client has too much.
pub const REFUSALS_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Connections on the admin listener: an operator and a scraper or two.
pub const ADMIN_CONNECTIONS_MAX: u32 = 64;
/// Of these, those of one client address.
pub const ADMIN_CLIENT_CONNECTIONS_MAX: u32 = 48;
/// Wrong tokens that one address may send at once: a command with an old token in its environment sends a few.
pub const TOKEN_FAILURES_AT_ONCE: u32 = 100;
/// How long it then waits for each further one.
pub const TOKEN_FAILURE_REFILL: Duration = Duration::from_secs(6);
/// Addresses whose wrong tokens are counted; some 50 bytes of memory each.
pub const TOKEN_FAILURE_ADDRESSES_MAX: usize = 4_096;
/// Entries of the audit log for what the node's own tokens did: some 200 bytes each.
pub const AUDIT_ENTRIES_MAX: u64 = 100_000;
/// How old an entry of the audit log may become.
pub const AUDIT_DAYS_MAX: u64 = 365;
/// Tokens of the admin API that hold at the same time: one for each of many tenants.
pub const TOKENS_MAX: i64 = 10_000;

/// Streams that one connection of HTTP/2 may have open.
pub const H2_STREAMS_MAX: u32 = 100;
/// Streams that a client may have reset before the node has looked at them (CVE-2023-44487, "rapid reset").
pub const H2_PENDING_RESETS_MAX: usize = 20;
/// Streams that the node may have reset because of a client's errors (CVE-2025-8671, "made you reset").
pub const H2_LOCAL_RESETS_MAX: usize = 1_024;
/// Largest header list of a request of HTTP/2, as RFC 9113 counts it.
pub const H2_HEADER_BYTES_MAX: u32 = 16 << 10;
/// Bytes of one request's body that may be under way unasked for, and so in memory.
pub const H2_STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all streams of a connection together.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 128 << 10;

/// Guests that run at the same time on the node, and so the slots of the instance pool.
pub const CONCURRENCY_MAX: u32 = 512;
/// Guests of one tenant that run at the same time: an eighth of the node.
pub const TENANT_CONCURRENCY_MAX: u32 = 64;
/// How long a request waits for its turn before it is told that the node or its tenant is busy.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(1);
/// Requests that wait for their turn, for each one that may run.
pub const WAITERS_PER_TURN: usize = 4;

/// Linear memory of one guest. The figure of Fastly, Akamai and Cloudflare.
pub const MEMORY_BYTES_MAX: u64 = 128 << 20;
/// What of a guest's memory is its request's own; what is beyond is charged to the memory that requests share.
pub const MEMORY_INCLUDED_BYTES: u64 = 2 << 20;
/// CPU time of one request.
pub const CPU_TIME_MAX: Duration = Duration::from_secs(1);
/// Time from a request's arrival to the end of its response.
pub const WALL_TIME_MAX: Duration = Duration::from_secs(30);
/// Table elements of one guest. rustc's guests have a few hundred, a Python interpreter some ten thousand.
pub const TABLE_ELEMENTS_MAX: u64 = 100_000;
/// Core instances, memories and tables inside one component: adapters and shims make several of one program.
pub const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
/// Memories inside one component.
pub const MEMORIES_PER_COMPONENT: u32 = 2;
/// Tables inside one component.
pub const TABLES_PER_COMPONENT: u32 = 8;
/// Host memory that one host call may take to lift a guest's arguments. wasmtime's own default is 128 MiB.
pub const HOSTCALL_BYTES_MAX: u64 = 16 << 20;
/// Resource handles (requests, streams, connections) that one guest may hold. wasmtime's default is 1,000,000.
pub const HANDLES_MAX: u64 = 10_000;
/// Bytes of a response that the host takes out of a guest at once.
pub const RESPONSE_CHUNK_BYTES_MAX: usize = 64 << 10;
/// Names and values of one set of header fields that a guest makes, twice of what browsers and proxies take.
pub const FIELD_BYTES_MAX: usize = 128 << 10;
/// Random bytes that one call may ask for.
pub const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// What a guest may write to stdout and stderr together in one request; the rest is dropped and said so.
pub const LOG_BYTES_MAX: u64 = 64 << 10;
/// What it may write there in one call.
pub const LOG_WRITE_BYTES_MAX: usize = 64 << 10;
/// Longest log line of a guest; a longer one is broken.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// How often running guests are pre-empted, so that one cannot hold a worker thread.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);
/// CPU time after which a guest goes on in the slow lane. Most functions never use as much.
pub const HEAVY_AFTER: Duration = Duration::from_millis(5);
/// A tenant's guests start in the slow lane when its typical request takes more than this: ten times what most take, so
/// that one which the kernel has interrupted does not count as heavy.
pub const TYPICALLY_HEAVY: Duration = Duration::from_millis(2);
/// Stacks that one guest of the 0.3 world can hold: one that waits in a call, and one on which the host writes what
/// arrives for another call.
pub const STACKS_PER_CONCURRENT_GUEST: u32 = 2;
/// Stack of one guest, host calls included; wasmtime keeps 512 KiB of it for the guest.
pub const STACK_BYTES: usize = 1 << 20;
/// What the freed slots of the pools of both worlds may keep together: zeroing the touched pages costs less than
/// unmapping them. It is shared out among all slots, because each that was ever used keeps its part.
pub const POOL_IDLE_BYTES_MAX: u64 = 1 << 30;
/// The least that each guest of each world must have of it, where anything is to be kept.
pub const POOL_IDLE_BYTES_PER_GUEST_MIN: u64 = 64 << 10;
/// Most that a freed memory keeps for its next guest. A small guest of rustc's has 1.1 MB, of which it touches a tenth.
pub const MEMORY_KEPT_BYTES: usize = 2 << 20;
/// Freed memories that are left to the component that had them, as long as there are others.
pub const WARM_SLOTS_MAX: u32 = 64;
/// The same for a slot's table.
pub const TABLE_KEPT_BYTES: usize = 32 << 10;
/// The same for a slot's stack.
pub const STACK_KEPT_BYTES: usize = 32 << 10;

/// Largest component that can be uploaded. A Python guest has 18 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// CPU time that compiling one component may take, in its own process.
pub const COMPILE_CPU_TIME_MAX: Duration = Duration::from_secs(120);
/// Machine code of one component. That of an 18 MB Python guest has some 60 MB.
pub const COMPILED_BYTES_MAX: u64 = 512 << 20;
/// Address space that compiling one component may take, in its own process.
pub const COMPILE_BYTES_MAX: u64 = 4 << 30;
/// Address space for each thread of a compilation: one that has little makes do with one thread.
pub const COMPILE_THREAD_BYTES: u64 = 128 << 20;
/// Components that are compiled at the same time.
pub const COMPILES_MAX: usize = 1;
/// Mapped components.
pub const COMPONENTS_MAX: usize = 256;
/// How long a component stays mapped after its last request.
pub const COMPONENT_PARK_TIME_MAX: Duration = Duration::from_secs(30);
/// Remembered addresses: tenant and function to component and database.
pub const ROUTES_MAX: usize = 8_192;

/// Value of one variable. A private key has 3 KB, the account file of a cloud service as much.
pub const VARIABLE_BYTES_MAX: usize = 16 << 10;
/// Variables of one tenant, those of all its functions together.
pub const VARIABLES_MAX: usize = 100;
/// Their values together: what an address that is in use may hold in memory.
pub const VARIABLES_BYTES_MAX: usize = 64 << 10;

/// Connections of one tenant's database that are open at the same time.
pub const SESSIONS_PER_TENANT: u32 = 4;
/// How long a request waits for a connection of its tenant that is in use before another is opened.
pub const SESSION_WAIT: Duration = Duration::from_millis(10);
/// Open database connections of the node. Each takes up to three descriptors.
pub const SESSIONS_MAX: u32 = 2_048;
/// Threads that run SQL which is not slow, for each core: some wait for the disk while others run. With 8 per core a
/// webhook cost 11 % more CPU time, which went into switching between them.
pub const DATABASE_THREADS_PER_CORE: u32 = 4;
/// Most of them when nobody says.
pub const DATABASE_THREADS_MAX: u32 = 64;
/// Processes that run tenants' SQL: none, because a request costs more with them. docs/security.md weighs it.
pub const DATABASE_PROCESSES: u32 = 0;
/// The fewest threads of a database process.
pub const DATABASE_PROCESS_THREADS_MIN: u32 = 2;
/// Address space of a database process beside what its sessions may take and its threads' stacks: the program, and
/// what the allocator keeps. It is the last defence; SQLite's memory is on accounts.
pub const DATABASE_PROCESS_ADDRESS_BYTES: u64 = 2 << 30;
/// A command that has had its thread for this long is slow: another thread takes its place, and it goes on beside the
/// others at a lower priority. Two flushes of a slow disk take no longer.
pub const DATABASE_SLOW_AFTER: Duration = Duration::from_millis(20);
/// CPU time of a statement after which its tenant's next ones are expected to be slow.
pub const DATABASE_HEAVY_AFTER: Duration = Duration::from_millis(5);
/// Priority (nice) of threads that do what takes long. Beside a thread as usual they get a tenth of a core, or less where
/// they yield, and the rest when nobody else wants it: enough to get on, and to let go soon of what others wait for; and
/// little enough that the kernel seldom makes a quick thread wait for their share.
pub const LOW_PRIORITY: i32 = 10;
/// How long a thread of guests that compute goes on beside others of its kind: more than the kernel gives a thread as
/// usual, which is up to 3 ms.
pub const HEAVY_GUEST_SLICE: Duration = Duration::from_millis(10);
/// The same of a slow statement's thread. It yields at each look, which costs it the rest of its slice: so that is the
/// shortest the kernel has.
pub const SLOW_STATEMENT_SLICE: Duration = Duration::from_micros(100);
/// Stack of a database thread: SQLite's parser and its expression walkers recurse. JSON in its binary form is gone
/// through by a call for each level, of which a value of 1 MiB can hold 218,000 at 305 bytes each. Only what is used is
/// memory.
pub const DATABASE_STACK_BYTES: usize = 128 << 20;
/// How long a database handle stays open after its last request.
pub const PARK_TIME_MAX: Duration = Duration::from_secs(2);
/// Memory of all parked handles: some 1,700 of them by their accounts, which count the whole of a wal-index, so that a
/// tenant which comes back within its park time finds its own. It is a fortieth of a machine of 4 GB.
pub const PARK_MEMORY_BYTES_MAX: u64 = 96 << 20;
/// What of a session's memory is its request's own; what is beyond is charged to the memory that requests share.
pub const SESSION_INCLUDED_BYTES: u32 = 256 << 10;
/// Running time of one SQL statement.
pub const STATEMENT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a statement may go on behind that, before whatever runs it is given up; longer when the machine holds it up.
pub const STATEMENT_GRACE: Duration = Duration::from_secs(2);
/// How long a request may hold its tenant's write transaction open.
pub const TRANSACTION_HELD_MAX: Duration = Duration::from_secs(5);
/// How long a database is suspended for its first statement that did not come back.
pub const SUSPENSION_TIME_MIN: Duration = Duration::from_secs(5);
/// The longest that it is suspended, when that happens again and again.
pub const SUSPENSION_TIME_MAX: Duration = Duration::from_secs(600);
/// How long a database must have been usable for its suspensions to be forgotten.
pub const SUSPENSION_FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// How long a statement waits for its tenant's one writer permit.
pub const WRITER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the integrity check of a database that leaves quarantine may take: 1 GiB from a slow disk.
pub const RECOVERY_STATEMENT_TIME_MAX: Duration = Duration::from_secs(300);
/// Rows of one statement, buffered; also the rows of all statements of one request that it has not read yet. Spin's
/// figure is 128 MiB.
pub const RESULT_BYTES_MAX: usize = 16 << 20;
/// Rows of a stream that the host hands to its guest at once.
pub const ROWS_AT_ONCE_MAX: usize = 1_024;
/// Statements of one request that wait for their turn at its database, with their values.
pub const WAITING_STATEMENTS_BYTES_MAX: usize = 16 << 20;
/// What stays free of the disk. Writes are turned away below it, while 16 database threads can still write for as long
/// as the housekeeping does not look.
pub const DISK_FREE_BYTES_MIN: u64 = 256 << 20;
/// Size of the log of all tenants' commits. One half is written to while the other becomes free.
pub const COMMIT_LOG_BYTES: u64 = 64 << 20;
/// The smallest commit log.
pub const COMMIT_LOG_BYTES_MIN: u64 = 2 << 20;
/// How much of the disk's free space may become the commit log: one of so many parts.
pub const COMMIT_LOG_PART: u64 = 16;
/// Size of one tenant's database, its log included.
pub const DATABASE_BYTES_MAX: u64 = 1 << 30;
/// Page size of a tenant's database, fixed when it is made.
pub const DATABASE_PAGE_BYTES: u32 = 4_096;
/// WAL of a tenant that never rests: beyond it the room checkpoints when a lease ends, and at four times of it
/// before the lease's next statement.
pub const WAL_BYTES_MAX: u64 = 4 << 20;
/// WAL that may stay when a handle is closed for want of room. The next open reads all of it.
pub const WAL_LEFT_BYTES_MAX: u64 = 64 << 10;
/// How long a tenant must have rested for its WAL to be copied, where the park time is zero.
pub const CHECKPOINT_REST_TIME: Duration = PARK_TIME_MAX;
/// Tenants whose checkpoint may wait until they have rested; some 300 bytes of memory each.
pub const DEFERRED_CHECKPOINTS_MAX: usize = 16_384;
/// `open` calls of one guest. Spin's figure.
pub const OPENS_PER_GUEST: u32 = 256;
/// Checkpoints that run at the same time, off the path of requests, and the closes after them.
pub const EVICTIONS_AT_ONCE: usize = 4;

/// Entries of a function's `allowed_outbound_hosts`: an address that is in use holds them in memory.
pub const OUTBOUND_HOSTS_MAX: usize = 100;
/// Outgoing requests of one request that are open at the same time. Cloudflare's figure is 6, Spin's 16.
pub const OUTBOUND_CONCURRENCY_MAX: u32 = 8;
/// Outgoing requests of the node that are open at the same time: eight tenants that have all they may.
pub const OUTBOUND_CONNECTIONS_MAX: u32 = 4_096;
/// Outgoing requests of one request, those that were denied included. Cloudflare's figure.
pub const OUTBOUND_REQUESTS_MAX: u32 = 50;
/// Body of an outgoing request.
pub const OUTBOUND_REQUEST_BYTES_MAX: u64 = 10 << 20;
/// Body of the response to an outgoing request.
pub const OUTBOUND_RESPONSE_BYTES_MAX: u64 = 10 << 20;
/// How long an outgoing request may take to reach its server: the name, the connection, TLS.
pub const OUTBOUND_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the head of the response may take from then on, the sending of the request included.
pub const OUTBOUND_FIRST_BYTE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the body of the response may pause.
pub const OUTBOUND_BETWEEN_BYTES_TIME_MAX: Duration = Duration::from_secs(10);
/// What one open outgoing request is charged of the memory that requests share: the buffers of HTTP, of TLS and of the
/// socket's two ends in this process.
pub const OUTBOUND_CALL_BYTES: u64 = 192 << 10;
/// What hyper may buffer of one outgoing request, and so the largest head of its response.
pub const OUTBOUND_BUFFER_BYTES: usize = 64 << 10;
/// Addresses of one name that are tried.
pub const OUTBOUND_ADDRESSES_MAX: usize = 4;
/// Names whose addresses are remembered for as long as their servers say.
pub const RESOLVED_NAMES_MAX: u64 = 1_024;
/// Questions to one name server that wait for their answer.
pub const RESOLVING_MAX: usize = 4_096;

/// How long a snapshot waits for requests that read the database; its writers wait behind it.
pub const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a snapshot may be read: 1 GiB at 15 Mbit/s. Its tenant's WAL grows meanwhile.
pub const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(600);
/// Bytes of a database file that are read at once.
pub const SNAPSHOT_PART_BYTES: usize = 256 << 10;
/// Parts that are read before their taker asks for them.
pub const SNAPSHOT_PARTS_AHEAD: usize = 2;

/// How long the upload of a database may take to arrive.
pub const IMPORT_TIME_MAX: Duration = Duration::from_secs(600);
/// How long the check of an uploaded database may take: 1 GiB from a slow disk.
pub const IMPORT_CHECK_TIME_MAX: Duration = Duration::from_secs(300);
/// Uploaded databases that are checked at the same time: each takes a database thread from requests for that long.
pub const IMPORT_CHECKS_MAX: usize = 1;

/// How long a drain waits for requests in flight before it cancels them. Below Fly's `kill_timeout`.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// How often parked handles and mapped components are looked over.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(250);
/// Descriptors that are neither connections nor databases: libraries, logs, listeners, the compiler's pipes.
pub const DESCRIPTORS_RESERVED: u64 = 256;
