//! Whole clusters, each on a machine of its own, driven by real `kubectl`, with real containers.

mod up_and_down;
