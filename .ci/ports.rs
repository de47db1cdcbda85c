//! Prints one free loopback address for each process of a timely program: `ports 2`.
//!
//! The system chooses the ports. On Linux they are on a loopback address of our own, so that no other
//! program is given them in the moment between choosing and using.

use std::net::TcpListener;

fn main() {
    let processes: usize = std::env::args().nth(1).expect("a number of processes").parse().unwrap();
    let host = if cfg!(target_os = "linux") {
        let pid = std::process::id();
        format!("127.{}.{}.{}", 1 + (pid >> 16) % 250, (pid >> 8) & 0xff, 1 + (pid & 0xff) % 250)
    } else {
        "127.0.0.1".to_owned()
    };
    let listeners: Vec<TcpListener> =
        (0..processes).map(|_| TcpListener::bind((host.as_str(), 0)).unwrap()).collect();
    for listener in listeners {
        println!("{}", listener.local_addr().unwrap());
    }
}
