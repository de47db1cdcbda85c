//! Remote functions of a simulated program, and what goes wrong on the way to them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::{FromFunction, ToFunction};
use tokio::time::sleep;

use super::random::Random;
use crate::call_error::CallError;
use crate::remote::{Answered, Answers};

/// What serves the functions at URLs that begin so.
pub(super) type Service = Arc<dyn Fn(&ToFunction) -> FromFunction + Send + Sync>;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallFault {
    /// Nobody is reached.
    Refused,
    /// The function is not called, and the answer says so.
    Unavailable,
    /// The function is called, and its answer is lost.
    Lost,
    /// The function is called, and never answers.
    Hangs,
    /// The answer comes so much later.
    Late(Duration),
}

/// The network of one run.
pub(super) struct Network {
    services: Vec<(String, Service)>,
    /// By number of the call.
    faults: Mutex<Vec<(u64, CallFault)>>,
    calls: AtomicU64,
    /// How many calls went wrong.
    failed: AtomicU64,
    random: Mutex<Random>,
}

impl Network {
    pub(super) fn new(
        services: Vec<(String, Service)>,
        faults: Vec<(u64, CallFault)>,
        random: Random,
    ) -> Self {
        let (faults, random) = (Mutex::new(faults), Mutex::new(random));
        Network { services, faults, calls: AtomicU64::new(0), failed: AtomicU64::new(0), random }
    }

    /// Nothing goes wrong from now on.
    pub(super) fn heal(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    fn fault(&self, call: u64) -> Option<CallFault> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().find(|(number, _)| *number == call).map(|(_, fault)| *fault)
    }
}

impl Answers for Network {
    fn answer(&self, url: &str, body: Bytes) -> Answered {
        let call = self.calls.fetch_add(1, Relaxed);
        let service = self.services.iter().find(|(prefix, _)| url.starts_with(prefix.as_str()));
        let service = service.map(|(_, service)| Arc::clone(service));
        let fault = self.fault(call);
        self.failed.fetch_add(fault.is_some().into(), Relaxed);
        let takes = self.random.lock().unwrap_or_else(PoisonError::into_inner).below(30);
        Box::pin(async move {
            sleep(Duration::from_millis(takes)).await;
            match fault {
                Some(CallFault::Refused) => {
                    return Err(CallError::connect("nobody is reached".to_owned()));
                }
                Some(CallFault::Unavailable) => {
                    let answer = http::Response::builder().status(503).body(Bytes::new());
                    return Ok(answer.expect("it is well formed"));
                }
                _ => {}
            }
            let Some(service) = service else {
                let answer = http::Response::builder().status(404).body(Bytes::new());
                return Ok(answer.expect("it is well formed"));
            };
            let request = ToFunction::decode(body).expect("requests are well formed");
            let answer = service(&request);
            let bytes = Bytes::from(answer.encode_to_vec());
            match fault {
                Some(CallFault::Lost) => {
                    return Err(CallError::lost("the answer is lost".to_owned()));
                }
                Some(CallFault::Hangs) => std::future::pending().await,
                Some(CallFault::Late(wait)) => sleep(wait).await,
                _ => {}
            }
            let answer = http::Response::builder()
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(bytes);
            Ok(answer.expect("it is well formed"))
        })
    }
}
