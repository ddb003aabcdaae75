//! An S3 server in memory, to try things by hand:
//! `cargo run -p chronolith-testkit --example s3-server -- 127.0.0.1:9000`.

use chronolith_testkit::S3Server;

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let server = S3Server::start_on(&address);
    println!("# objstore.yml for this server; it forgets everything when it ends (Ctrl-C)");
    println!("{}", server.config_yaml());
    loop {
        std::thread::park();
    }
}
