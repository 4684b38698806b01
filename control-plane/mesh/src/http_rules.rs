//! What callers may ask of HTTP beyond plain requests, and how much of it.

/// The rules of a service for HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRules {
    /// The protocols to which a connection may be upgraded (RFC 9110, section 7.8), in lower case. They hold for the
    /// `:protocol` of extended CONNECT (RFC 8441) as well. Default: `websocket`. Never `h2c`.
    pub upgrades: Vec<Box<str>>,
    /// Whether CONNECT may open a tunnel to the service. Default: no.
    pub connect: bool,
    /// The longest body of a request, in bytes. Default: no limit, since nothing is buffered.
    pub max_body: Option<u64>,
}

impl HttpRules {
    /// How many upgrades may be listed.
    pub const MAX_UPGRADES: usize = 16;

    /// Whether a connection may be upgraded to `protocol`, whatever its case.
    pub fn allows_upgrade(&self, protocol: &str) -> bool {
        self.upgrades.iter().any(|u| u.eq_ignore_ascii_case(protocol))
    }

    /// Refuses what is no protocol, and what would lead around every rule.
    pub fn check(&self) -> Result<(), String> {
        if self.upgrades.len() > Self::MAX_UPGRADES {
            return Err(format!("more than {} upgrades are listed", Self::MAX_UPGRADES));
        }
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~/".contains(&b);
        for upgrade in &self.upgrades {
            if upgrade.is_empty() || upgrade.len() > 64 || !upgrade.bytes().all(token) {
                return Err(format!("the upgrade {upgrade:?} is not a protocol in lower case"));
            }
            if upgrade.starts_with("h2c") {
                return Err("an upgrade to h2c is never allowed: it would lead around every rule".into());
            }
        }
        Ok(())
    }
}

impl Default for HttpRules {
    fn default() -> Self {
        Self { upgrades: vec!["websocket".into()], connect: false, max_body: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2c_is_never_allowed_and_websocket_is_unless_taken_out() {
        assert!(HttpRules::default().allows_upgrade("WebSocket"));
        let with = |u: &str| HttpRules { upgrades: vec![u.into()], ..HttpRules::default() };
        assert!(with("tls/1.0").check().is_ok());
        for bad in ["h2c", "h2c-14", "WebSocket", "", "a b"] {
            assert!(with(bad).check().is_err(), "{bad}");
        }
    }
}
