//! Real programs in front and behind: redis, nginx, PostgreSQL, iperf3.
//!
//! covers: src/forward

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{
    Backend, Balancer, Machine, Server, Setup, Tool, connect, exchange, free_port, is_reset, program, run, seed,
    wait_until,
};

/// A redis without persistence.
pub(crate) fn redis(directory: &Path) -> Server {
    let port = free_port();
    let arguments = format!("--port {port} --bind 127.0.0.1 --appendonly no --dir {}", directory.display());
    let mut tool = Tool::new("redis-server").arguments(&arguments);
    tool.0.args(["--save", ""]);
    Server::start(tool, port, &directory.join("redis.log"))
}

/// An address as the tools want it.
fn host_and_port(address: SocketAddr) -> (String, String) {
    (address.ip().to_string(), address.port().to_string())
}

fn before(server: &Server, setup: Setup, machine: &Machine) -> Balancer {
    machine.start(setup.backend("server", server.address))
}

#[test]
fn redis_serves_its_benchmark_single_and_pipelined() {
    let machine = Machine::alone();
    let setup = Setup::new();
    let server = redis(setup.directory());
    let balancer = before(&server, setup, &machine);
    let (host, port) = host_and_port(balancer.address());
    for how in [
        "-c 50 -n 20000 -t set,get,incr",
        "-c 20 -P 16 -n 100000 -t set,get,lrange_100",
        "-c 5 -n 500 -d 200000 -t set,get",
    ] {
        let tool = Tool::new("redis-benchmark").arguments(&format!("-h {host} -p {port} --csv {how}"));
        let output = tool.output(Duration::from_secs(60));
        assert!(!output.contains("Error") && output.contains("\"GET\""), "{output}");
    }
    balancer.await_no_session();
    assert_eq!(balancer.process().ring_workers(), 0);
    balancer.stop();
}

#[test]
fn a_pipelined_redis_client_gets_every_answer_in_order() {
    let machine = Machine::shared();
    let setup = Setup::new();
    let server = redis(setup.directory());
    let balancer = before(&server, setup, &machine);
    let client = balancer.connect();
    const COMMANDS: usize = 50_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(COMMANDS);
            (&client).write_all(&request).expect("sending");
        });
        for (number, line) in BufReader::new(&client).lines().take(COMMANDS).enumerate() {
            assert_eq!(line.expect("an answer"), format!(":{}", number + 1));
        }
    });
    balancer.stop_after(client);
}

#[test]
fn redis_messages_reach_their_subscribers_in_order() {
    let machine = Machine::shared();
    let setup = Setup::new();
    let server = redis(setup.directory());
    let balancer = before(&server, setup, &machine);
    let subscribers: Vec<TcpStream> = (0..5).map(|_| balancer.connect()).collect();
    for mut subscriber in &subscribers {
        subscriber.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n").expect("subscribing");
        let mut confirmed = vec![0; b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n".len()];
        subscriber.read_exact(&mut confirmed).expect("a confirmation");
    }
    let publisher = balancer.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2000 {
                let message = format!("message-{number:06}");
                let command = format!("*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$14\r\n{message}\r\n");
                (&publisher).write_all(command.as_bytes()).expect("publishing");
                let mut answer = [0; 4];
                (&publisher).read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b":5\r\n");
            }
        });
        for subscriber in &subscribers {
            scope.spawn(move || {
                let mut lines = BufReader::new(subscriber).lines().map(|line| line.expect("a line"));
                for number in 0..2000 {
                    // *3, $7, message, $4, news, $14, and the message itself.
                    assert_eq!(lines.nth(6), Some(format!("message-{number:06}")));
                }
            });
        }
    });
    drop(subscribers);
    balancer.stop_after(publisher);
}

#[test]
fn the_client_of_a_killed_backend_learns_within_a_second_and_others_notice_nothing() {
    let machine = Machine::alone();
    let setup = Setup::new();
    let mut server = redis(setup.directory());
    let other = Backend::echo();
    let setup = setup.backend("redis", server.address);
    let balancer = machine.start(setup.service("other").backend("other", other.address));
    let bystanders: Vec<TcpStream> = (0..10).map(|_| connect(balancer.address_of("other"))).collect();

    // Far more than all sockets on the way hold: the transfer is in full flow when its server is killed.
    let reader = balancer.connect();
    (&reader).write_all(b"*4\r\n$8\r\nSETRANGE\r\n$1\r\nb\r\n$9\r\n268435455\r\n$1\r\nx\r\n").expect("sending");
    (&reader).write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n").expect("asking");
    (&reader).read_exact(&mut vec![0; 20 << 20]).expect("the beginning of the transfer");
    // One more that has nothing under way.
    let waiting = balancer.connect();
    bystanders.iter().for_each(exchange);
    let killed = Instant::now();
    server.child.kill();
    std::thread::scope(|scope| {
        scope.spawn(|| read_until_cut(&waiting));
        let rest = read_until_cut(&reader);
        assert!(rest < 200 << 20, "{rest} bytes after the kill: the transfer was as good as over");
    });
    assert!(killed.elapsed() < Duration::from_secs(1), "it took {:?}", killed.elapsed());
    bystanders.iter().for_each(exchange);
    drop((reader, waiting, bystanders));
    balancer.await_no_session();
    balancer.stop();
}

fn read_until_cut(mut stream: &TcpStream) -> usize {
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if is_reset(&error) => return total,
            Err(error) => panic!("{error} after {total} bytes"),
        }
    }
}

/// An nginx that serves a directory.
fn nginx(directory: &Path) -> Server {
    let port = free_port();
    let root = directory.display();
    let config = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr error; worker_rlimit_nofile 10000;\n\
         events {{ worker_connections 4000; }}\n\
         http {{ access_log off; sendfile on; client_body_temp_path {root}/1; proxy_temp_path {root}/2;\n\
         fastcgi_temp_path {root}/3; uwsgi_temp_path {root}/4; scgi_temp_path {root}/5;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }} }}\n"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, config).expect("writing nginx's configuration");
    let tool = Tool::new("nginx").arguments(&format!("-p {root} -c {}", file.display()));
    Server::start(tool, port, &directory.join("nginx.log"))
}

#[test]
fn nginx_serves_wrk_with_lasting_and_with_short_connections() {
    let machine = Machine::alone();
    let setup = Setup::new();
    std::fs::write(setup.directory().join("small"), "hello from behind\n").expect("writing a page");
    let server = nginx(setup.directory());
    let balancer = before(&server, setup, &machine);
    let url = format!("http://{}/small", balancer.address());
    for header in ["Accept: */*", "Connection: close"] {
        let mut tool = Tool::new("wrk").arguments("-t2 -c50 -d3s");
        tool.0.args(["-H", header, &url]);
        let output = tool.output(Duration::from_secs(30));
        assert!(!output.contains("Socket errors") && !output.contains("Non-2xx"), "{header}: {output}");
        assert!(output.contains("Requests/sec"), "{output}");
    }
    balancer.await_no_session();
    assert_eq!(balancer.status().sum("/services/web/refused_by"), 0);
    balancer.stop();
}

#[test]
fn a_download_of_a_gibibyte_from_nginx_is_exact() {
    const SIZE: u64 = 1 << 30;
    let machine = Machine::alone();
    let setup = Setup::new();
    let path = setup.directory().join("big");
    let file = File::create_new(&path).expect("a big file");
    file.set_len(SIZE).expect("room for a big file");
    // Mostly holes, with random bytes strewn in: a byte too many, too few or displaced shows.
    let mut random = fastrand::Rng::with_seed(seed());
    let mut block = vec![0; 1500];
    for _ in 0..5000 {
        random.fill(&mut block);
        file.write_all_at(&block, random.u64(0..SIZE - 1500)).expect("writing");
    }
    let server = nginx(setup.directory());
    let balancer = before(&server, setup, &machine);
    let mut client = BufReader::with_capacity(1 << 20, balancer.connect());
    client.get_mut().write_all(b"GET /big HTTP/1.0\r\n\r\n").expect("asking");
    let head: Vec<String> =
        (&mut client).lines().map(|line| line.expect("a head")).take_while(|line| !line.is_empty()).collect();
    assert!(head.contains(&format!("Content-Length: {SIZE}")), "{head:?}");
    same_bytes(client, File::open(&path).expect("the file"), SIZE);
    balancer.await_no_session();
    balancer.stop();
}

/// Fails unless both hold the same `size` bytes and then end.
fn same_bytes(mut got: impl Read, mut expected: impl Read, size: u64) {
    let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut position = 0;
    loop {
        let count = got.read(&mut one).expect("a download that goes on");
        if count == 0 {
            break;
        }
        expected.read_exact(&mut two[..count]).expect("no more than the file holds");
        assert!(one[..count] == two[..count], "a difference between byte {position} and {count} bytes further");
        position += count as u64;
    }
    assert_eq!(position, size);
}

/// A fresh PostgreSQL; it refuses to run as root, so it gets a user of its own.
fn postgres(directory: &Path) -> Server {
    let number = |what| run("id", &[what, "postgres"]).trim().parse::<u32>().expect("a number");
    let (user, group) = (number("-u"), number("-g"));
    let home = directory.join("postgres");
    std::fs::create_dir(&home).expect("a directory");
    for place in [directory, &home] {
        chown(place, Some(user), Some(group)).expect("giving a directory to postgres");
    }
    let as_postgres = |name: &str| {
        let mut tool = Tool::new("setpriv");
        tool.0.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into()]);
        tool.0.arg(program(name)).current_dir(&home);
        tool
    };
    let data = home.join("data");
    let arguments = format!("-D {} -A trust -U postgres --no-sync", data.display());
    as_postgres("initdb").arguments(&arguments).output(Duration::from_secs(60));
    let port = free_port();
    let arguments = format!(
        "-D {} -p {port} -h 127.0.0.1 -k {} -c fsync=off -c max_connections=100",
        data.display(),
        home.display()
    );
    Server::start(as_postgres("postgres").arguments(&arguments), port, &directory.join("postgres.log"))
}

#[test]
fn postgresql_serves_pgbench_with_lasting_and_with_short_connections() {
    let machine = Machine::alone();
    let setup = Setup::new();
    let server = postgres(setup.directory());
    let balancer = before(&server, setup, &machine);
    let (host, port) = host_and_port(balancer.address());
    let pgbench = |how: &str| {
        let arguments = format!("-h {host} -p {port} -U postgres {how} postgres");
        Tool::new("pgbench").arguments(&arguments).output(Duration::from_secs(60))
    };
    // It may accept before it serves.
    wait_until("PostgreSQL serves", Duration::from_secs(20), || {
        let ready = std::process::Command::new(program("pg_isready")).args(["-h", &host, "-p", &port]).output();
        ready.is_ok_and(|ready| ready.status.success())
    });
    pgbench("-i -s 2 -q");
    for how in ["-c 16 -j 2 -T 3 -n", "-c 8 -j 2 -T 2 -n -C -S", "-c 4 -j 2 -T 2 -n -M prepared -S"] {
        let output = pgbench(how);
        assert!(output.contains("number of failed transactions: 0"), "{how}: {output}");
    }
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn iperf3_streams_in_both_directions_at_once() {
    let machine = Machine::alone();
    let setup = Setup::new();
    let port = free_port();
    let tool = Tool::new("iperf3").arguments(&format!("-s -B 127.0.0.1 -p {port}"));
    let server = Server::start(tool, port, &setup.directory().join("iperf3.log"));
    let balancer = before(&server, setup, &machine);
    let (host, port) = host_and_port(balancer.address());
    let tool = Tool::new("iperf3").arguments(&format!("-c {host} -p {port} --bidir -P 4 -t 4 -J"));
    let output: serde_json::Value =
        serde_json::from_str(&tool.output(Duration::from_secs(60))).expect("iperf3 answers in JSON");
    for direction in ["sum_received", "sum_received_bidir_reverse"] {
        let bytes = output["end"][direction]["bytes"].as_f64().unwrap_or_default();
        assert!(bytes > 100e6, "{direction}: {bytes} bytes in 4 s: {output:#}");
    }
    balancer.await_no_session();
    assert_eq!(balancer.process().ring_workers(), 0);
    balancer.stop();
}
