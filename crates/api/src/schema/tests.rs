use super::*;

#[test]
fn every_kind_that_travels_has_kind_and_api_version() {
    let schema = schema();
    for (id, ty) in schema.named() {
        let is_root = ty.object().is_some_and(|o| !o.gvk.is_empty()) && ty.short_name() != "WatchEvent";
        if is_root {
            assert!(schema.field(id, "kind").is_some_and(|f| f.tag == 0), "{} has a kind", ty.name);
        }
    }
}
