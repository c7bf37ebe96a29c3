//! How many requests are worked on at once, so that a flood of them takes neither memory nor time from the rest.
//! Follows `WithMaxInFlightLimit`, whose limits these are.

use std::sync::Arc;

use apimachinery::Status;
use auth::UserInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::request_info::RequestInfo;

/// Upstream: `--max-requests-inflight`.
const READ_ONLY_MAX: usize = 400;
/// Upstream: `--max-mutating-requests-inflight`.
const MUTATING_MAX: usize = 200;
/// Seconds after which a refused client may try again.
const RETRY_SECONDS: i32 = 1;

pub struct InFlight {
    read_only: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight {
            read_only: Arc::new(Semaphore::new(READ_ONLY_MAX)),
            mutating: Arc::new(Semaphore::new(MUTATING_MAX)),
        }
    }
}

impl InFlight {
    /// A seat until the returned permit is dropped. Long-running requests and administrators need none, so that a
    /// flooded server can still be repaired.
    pub fn enter(&self, info: &RequestInfo, user: &UserInfo) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if info.is_long_running() || user.is_in(auth::user::MASTERS) {
            return Ok(None);
        }
        let seats = if info.is_mutating() { &self.mutating } else { &self.read_only };
        match seats.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => {
                Err(Status::too_many_requests("Too many requests, please try again later.", RETRY_SECONDS))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_seat_is_given_and_one_more_refused() {
        let in_flight = InFlight::default();
        let user = UserInfo::new("x", [""; 0]);
        let info = RequestInfo { verb: "create", is_resource: true, ..RequestInfo::default() };
        let seats: Vec<_> =
            (0..MUTATING_MAX).map(|_| in_flight.enter(&info, &user).expect("has room")).collect();
        assert_eq!(in_flight.enter(&info, &user).expect_err("is full").code, 429);
        assert!(in_flight.enter(&info, &UserInfo::new("root", [auth::user::MASTERS])).is_ok());
        drop(seats);
        assert!(in_flight.enter(&info, &user).is_ok());
    }
}
