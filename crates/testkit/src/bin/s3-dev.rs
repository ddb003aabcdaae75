//! `s3-dev`: the tests' S3 server as a process, for `examples/cluster` and for trying things out.
//!
//! Objects lie in memory and go with the process; signatures are checked, one key and one bucket are known. A directory that is
//! named is served as the bucket's first contents, from the disk.

use std::io::Write;

use chronolith_testkit::S3Server;

const USAGE: &str = "usage: s3-dev ADDRESS OBJSTORE.YML [DIRECTORY]\n\nServes S3 at ADDRESS (HOST:PORT) and writes the \
                     configuration of clients, an objstore.yml, to the file. The bucket begins with the files of \
                     DIRECTORY, which are not changed.";

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (address, config, directory) = match args.as_slice() {
        [address, config] => (address, config, None),
        [address, config, directory] => (address, config, Some(directory)),
        _ => {
            eprintln!("{USAGE}");
            return std::process::ExitCode::from(2);
        }
    };
    let server = S3Server::start_on(address);
    if let Some(directory) = directory
        && let Err(e) = server.serve_directory(directory.as_ref())
    {
        eprintln!("cannot serve {directory}: {e}");
        return std::process::ExitCode::FAILURE;
    }
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
