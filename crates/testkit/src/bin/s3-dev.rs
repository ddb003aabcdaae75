//! `s3-dev`: the tests' S3 server as a process, for `examples/cluster` and for trying things out.
//!
//! Objects lie in memory and go with the process; signatures are checked, one key and one bucket are known.

use std::io::Write;

use chronolith_testkit::S3Server;

const USAGE: &str = "usage: s3-dev ADDRESS OBJSTORE.YML\n\nServes S3 at ADDRESS (HOST:PORT) and writes the \
                     configuration of clients, an objstore.yml, to the file.";

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, config] = args.as_slice() else {
        eprintln!("{USAGE}");
        return std::process::ExitCode::from(2);
    };
    let server = S3Server::start_on(address);
    if let Err(e) = std::fs::write(config, server.config_yaml()) {
        eprintln!("cannot write {config}: {e}");
        return std::process::ExitCode::FAILURE;
    }
    println!("S3 at http://{}", server.endpoint());
    let _ = std::io::stdout().flush();
    // Ended by a signal: nothing is kept.
    loop {
        std::thread::park();
    }
}
