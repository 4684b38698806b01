//! What stands for a policy that does not hold, where nothing is known that was in force before: nobody comes in by it.

use outrigger_mesh::Label;
use serde_json::{Value as Json, json};

use super::Kind;

/// The AccessPolicy that lets in nobody whom this one, which does not hold, could have let in or kept out: what it would have
/// allowed it does not, and what it would have denied is everything. It is for the same services, those of them that are there;
/// where a name can not be read, for its whole namespace. `None` for what keeps nobody out: other kinds, what only notes, and
/// what is for no service that is there.
pub(crate) fn closed(value: &Json, is_there: impl Fn(&Label) -> bool) -> Option<Json> {
    let spec = &value["spec"];
    if value["kind"] != Kind::AccessPolicy.as_str() || spec["action"] == "audit" {
        return None;
    }
    let said = spec["targetRefs"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<Option<Label>> = said.iter().map(|t| Label::new(t["name"].as_str()?).ok()).collect();
    let all_read = !names.is_empty() && names.iter().all(Option::is_some);
    let mut targets: Vec<Json> = vec![];
    for name in names.iter().flatten().filter(|name| all_read && is_there(name)) {
        let target = json!({ "group": "outrigger.dev", "kind": "MeshService", "name": name.as_str() });
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if all_read && targets.is_empty() {
        return None;
    }
    let (action, rules) =
        if spec["action"] == "allow" { ("allow", json!([])) } else { ("deny", json!([{}])) };
    let metadata = json!({ "name": value["metadata"]["name"], "namespace": value["metadata"]["namespace"] });
    Some(json!({
        "apiVersion": Kind::AccessPolicy.api_version(), "kind": Kind::AccessPolicy.as_str(), "metadata": metadata,
        "spec": { "targetRefs": targets, "action": action, "rules": rules },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_does_not_hold_lets_nobody_in() {
        let broken = |action: &str, targets: Json| {
            json!({ "kind": "AccessPolicy", "metadata": { "name": "a", "namespace": "shop" },
                    "spec": { "action": action, "targetRefs": targets, "rules": [{ "frm": [] }] } })
        };
        let names =
            json!([{ "kind": "MeshService", "name": "cart" }, { "name": "gone" }, { "name": "cart" }]);
        let stand_in =
            |value: &Json| closed(value, |name| name.as_str() != "gone").map(|c| c["spec"].clone());
        let of_cart = json!([{ "group": "outrigger.dev", "kind": "MeshService", "name": "cart" }]);
        let allow = json!({ "targetRefs": of_cart, "action": "allow", "rules": [] });
        assert_eq!(stand_in(&broken("allow", names.clone())), Some(allow));
        let deny = json!({ "targetRefs": of_cart, "action": "deny", "rules": [{}] });
        assert_eq!(stand_in(&broken("deny", names.clone())), Some(deny.clone()));
        assert_eq!(stand_in(&broken("dny", names.clone())), Some(deny));
        for odd in [json!("cart"), json!([]), json!([{ "name": "cart" }, { "name": 7 }])] {
            let whole = stand_in(&broken("deny", odd)).unwrap();
            assert_eq!(whole["targetRefs"], json!([]), "of the whole namespace");
        }
        assert_eq!(stand_in(&broken("deny", json!([{ "name": "gone" }]))), None);
        assert_eq!(stand_in(&broken("audit", names)), None);
    }
}
