//! Chains whose authorities break one rule each.

use super::der::{
    BASIC, CODE_SIGNING, Draft, EXTENDED, Key, NAME_CONSTRAINTS, UNKNOWN, USAGE, basic, constraints,
    critical, extended, key_usage, plain, tlv,
};
use super::{CART, Case, Made, ROOT, World};

pub(crate) fn all() -> Vec<Case> {
    [strangers(), intermediates(), shapes()].into_iter().flatten().collect()
}

const fn chain(
    id: &'static str,
    attacks: &'static str,
    says: &'static str,
    make: fn(&World) -> Vec<Vec<u8>>,
) -> Case {
    Case { id, attacks, chain: Made::Chain(make), says }
}

/// A leaf behind an intermediate of the mesh that differs from a good one by `change`.
fn through(world: &World, change: impl FnOnce(&mut Draft)) -> Vec<Vec<u8>> {
    let key = Key::new();
    let mut draft = Draft::authority(&key, ROOT, "intermediate", Some(0));
    change(&mut draft);
    vec![world.leaf("intermediate", &key), draft.sign(&world.root)]
}

fn strangers() -> Vec<Case> {
    vec![
        chain("stranger-of-the-same-name", "roots are known by their names", "signed", |w| {
            vec![w.leaf(ROOT, &Key::new())]
        }),
        chain("stranger-brings-its-root", "a root in the chain is believed", "signed", |w| {
            let key = Key::new();
            vec![w.leaf(ROOT, &key), Draft::authority(&key, ROOT, ROOT, None).sign(&key)]
        }),
        chain("signed-by-itself", "a leaf vouches for itself", "signed", |w| {
            vec![Draft::leaf(&w.key, "leaf", CART).sign(&w.key)]
        }),
        chain("root-of-another-domain", "any root vouches for any domain", "signed", |w| {
            vec![w.leaf("other root", &w.other)]
        }),
        chain("intermediate-of-another-domain", "an intermediate crosses domains", "signed", |w| {
            let key = Key::new();
            let crossing = Draft::authority(&key, "other root", "crossing", Some(0)).sign(&w.other);
            vec![w.leaf("crossing", &key), crossing]
        }),
        chain(
            "our-root-for-another-domain",
            "our root vouches for a domain that is federated",
            "signed",
            |w| vec![Draft::leaf(&w.key, ROOT, "spiffe://other.local/ns/shop/sa/cart").sign(&w.root)],
        ),
    ]
}

fn intermediates() -> Vec<Case> {
    vec![
        chain(
            "intermediate-without-constraints",
            "a certificate that is no authority signs",
            "verify",
            |w| through(w, |d| d.replace(BASIC, [])),
        ),
        chain("intermediate-that-is-none", "cA is false", "verify", |w| {
            through(w, |d| d.replace(BASIC, [critical(BASIC, basic(false, None))]))
        }),
        chain("workload-signs-a-workload", "a leaf as an intermediate", "verify", |w| {
            let web = Key::new();
            let signer =
                Draft { subject: "web", ..Draft::leaf(&web, ROOT, "spiffe://mesh.local/ns/shop/sa/web") };
            vec![w.leaf("web", &web), signer.sign(&w.root)]
        }),
        chain("intermediate-that-may-not-sign", "an authority without keyCertSign", "verify", |w| {
            through(w, |d| d.replace(USAGE, [critical(USAGE, key_usage(0x80))]))
        }),
        chain("expired-intermediate", "only the leaf's dates are looked at", "expired", |w| {
            through(w, |d| d.life = (-7200, -60))
        }),
        chain("intermediate-of-tomorrow", "only the leaf's dates are looked at", "not yet valid", |w| {
            through(w, |d| d.life = (3600, 7200))
        }),
        chain("path-too-long", "an intermediate makes an intermediate it may not make", "verify", |w| {
            let (first, second) = (Key::new(), Key::new());
            let one = Draft::authority(&first, ROOT, "first", Some(0)).sign(&w.root);
            let two = Draft::authority(&second, "first", "second", None).sign(&first);
            vec![w.leaf("second", &second), two, one]
        }),
        chain("constrained-to-another-domain", "name constraints of an intermediate", "verify", |w| {
            through(w, |d| {
                d.extensions.push(critical(NAME_CONSTRAINTS, constraints(true, 0x86, "other.local")));
            })
        }),
        chain("excluded-names", "name constraints that exclude", "verify", |w| {
            through(w, |d| {
                d.extensions.push(critical(NAME_CONSTRAINTS, constraints(false, 0x86, "mesh.local")));
            })
        }),
        chain("intermediate-for-code", "nested usage is not looked at", "verify", |w| {
            through(w, |d| d.extensions.push(plain(EXTENDED, extended(&[CODE_SIGNING]))))
        }),
        chain(
            "intermediate-with-a-condition",
            "an unknown critical extension above the leaf",
            "verify",
            |w| through(w, |d| d.extensions.push(critical(UNKNOWN, tlv(0x02, &[0])))),
        ),
        chain("forged-intermediate", "the signature of the intermediate is not looked at", "signed", |w| {
            through(w, |d| d.forged = true)
        }),
    ]
}

fn shapes() -> Vec<Case> {
    vec![
        chain("seven-certificates", "work without an end", "7 certificates", |w| {
            let mut chain = vec![w.leaf(ROOT, &w.root)];
            chain.extend(std::iter::repeat_n(w.root_der.clone(), 6));
            chain
        }),
        chain("a-hundred-certificates", "work without an end", "100 certificates", |w| {
            vec![w.leaf(ROOT, &w.root); 100]
        }),
        chain("root-as-leaf", "whoever holds the root's certificate is anybody", "authority", |w| {
            vec![w.root_der.clone()]
        }),
        chain("intermediate-missing", "a gap is filled with trust", "signed", |w| {
            vec![through(w, |_| {}).remove(0)]
        }),
        chain("leaf-truncated", "what was read so far is believed", "parsed", |w| {
            let mut leaf = w.leaf(ROOT, &w.root);
            leaf.truncate(leaf.len() / 2);
            vec![leaf]
        }),
        chain("leaf-of-nothing", "an empty certificate", "parsed", |_| vec![vec![0x30, 0]]),
        chain("leaf-of-noise", "bytes", "parsed", |_| vec![vec![0xa5; 300]]),
        chain("length-beyond-the-end", "a length that lies", "parsed", |w| {
            let mut leaf = w.leaf(ROOT, &w.root);
            leaf[2] = 0xff;
            vec![leaf]
        }),
    ]
}
