//! How many seats a request takes. Most take one; a list takes more the more memory it needs at once. Follows
//! `listWorkEstimator` with `SizeBasedListCostEstimate`, for a server whose lists all come from memory.

use store::Size;

use crate::core::Core;
use crate::query::Query;
use crate::request_info::RequestInfo;

/// Upstream: `bytesPerSeat`.
const BYTES_PER_SEAT: u64 = 100_000;
/// A longer list is sent in pieces, which are not all in memory at once (upstream:
/// `cacheWithStreamingMaxMemoryUsage`).
const BYTES_MAX: u64 = 1_000_000;

pub fn width(core: &Core, info: &RequestInfo, query: &Query) -> u32 {
    let lists = match info.verb {
        "list" => true,
        "watch" => query.flag("sendInitialEvents") || matches!(query.text("resourceVersion"), "" | "0"),
        _ => false,
    };
    // A list of one name finds one object.
    if !lists || !info.name.is_empty() {
        return 1;
    }
    let Some(kind) = core.kind(&info.group, &info.version, &info.resource) else { return 1 };
    estimate(core.store.size(kind.storage), query.text("limit").parse().unwrap_or_default())
}

/// Of a list of at most `limit` objects, where 0 is no limit.
fn estimate(size: Size, limit: u64) -> u32 {
    let objects = if limit > 0 { size.objects.min(limit) } else { size.objects };
    let bytes = (objects * size.bytes.div_ceil(size.objects.max(1))).min(BYTES_MAX);
    u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_as_wide_as_what_it_holds_in_memory() {
        let check = |objects, bytes, limit, expect| {
            assert_eq!(estimate(Size { objects, bytes }, limit), expect, "{objects} {bytes} {limit}");
        };
        check(0, 0, 0, 1);
        check(10, 20_000, 0, 1);
        check(100, 200_000, 0, 2);
        check(100, 200_001, 0, 3);
        check(1000, 2_000_000, 100, 2);
        check(100_000, 200_000_000, 0, 10);
    }
}
