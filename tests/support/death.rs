//! How a program of a test ends without a word, at a point that it comes to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Ends the process when it has come to a point for the n-th time.
#[derive(Clone)]
pub struct Death {
    pub point: Arc<str>,
    pub left: Arc<AtomicU64>,
}

impl Death {
    pub fn reach(&self, point: &str) {
        if *self.point == *point && self.left.fetch_sub(1, SeqCst) == 1 {
            std::process::abort();
        }
    }

    /// Comes to "manifest" whenever there is another manifest.
    pub fn watch(&self, manifests: PathBuf) {
        let death = self.clone();
        std::thread::spawn(move || {
            let count = || std::fs::read_dir(&manifests).map_or(0, Iterator::count);
            let mut before = count();
            loop {
                let now = count();
                (before..now).for_each(|_| death.reach("manifest"));
                before = now;
                std::thread::yield_now();
            }
        });
    }
}
