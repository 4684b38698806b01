//! What a service of the shop is told at its start: by flags, else by the environment. All
//! mistakes are reported at once, in one line. What a service has no use for it does not look at, so
//! that all can be started with the same environment.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::call::Way;
use crate::prices::Version;

/// The settings of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen: on loopback unless told otherwise; the port 0, the default, lets the system choose.
    pub address: SocketAddr,
    /// How long every answer is held back.
    pub delay: Duration,
}

/// The settings of `prices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PricesSettings {
    /// What every service has.
    pub service: Settings,
    /// Which version this is.
    pub version: Version,
}

/// The settings of a service that calls others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerSettings {
    /// What every service has.
    pub service: Settings,
    /// Where calls go.
    pub outbound: Way,
}

/// Every mistake in the settings, in one line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<String>);

impl Settings {
    /// From the flags and the environment of this process.
    pub fn from_process() -> Result<Self, Mistakes> {
        let mut reader = Reader::of_process();
        let settings = reader.service();
        reader.finish(settings)
    }
}

impl PricesSettings {
    /// From the flags and the environment of this process.
    pub fn from_process() -> Result<Self, Mistakes> {
        Self::read(Reader::of_process())
    }

    fn read(mut reader: Reader) -> Result<Self, Mistakes> {
        let service = reader.service();
        let version = reader.value("VERSION", "a version of prices: v1 or v2").unwrap_or(Version::V1);
        reader.finish(Self { service, version })
    }
}

impl CallerSettings {
    /// From the flags and the environment of this process.
    pub fn from_process() -> Result<Self, Mistakes> {
        Self::read(Reader::of_process())
    }

    fn read(mut reader: Reader) -> Result<Self, Mistakes> {
        let service = reader.service();
        let one = reader.value("OUTRIGGER_OUTBOUND", OUTBOUND_HINT).map(Way::One);
        let names = reader.value("SHOP_NAMES_PORT", "the port of the other services").map(Way::Names);
        let given = |name| reader.given(name);
        if !given("OUTRIGGER_OUTBOUND") && !given("SHOP_NAMES_PORT") {
            reader.mistakes.push(format!("OUTRIGGER_OUTBOUND is not set: give {OUTBOUND_HINT}"));
        }
        // The last is never used: its absence is a mistake already.
        let outbound = one.or(names).unwrap_or(Way::Names(0));
        reader.finish(Self { service, outbound })
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// What was given, by the name of the variable, and the mistakes found in it.
struct Reader {
    values: HashMap<&'static str, String>,
    mistakes: Vec<String>,
}

impl Reader {
    fn of_process() -> Self {
        Self::new(std::env::args().skip(1), |name| std::env::var(name).ok())
    }

    /// Flags are `--port 0` or `--port=0` and win; an empty variable counts as absent.
    fn new(mut args: impl Iterator<Item = String>, env: impl Fn(&str) -> Option<String>) -> Self {
        let mut values: HashMap<_, _> = KNOWN
            .iter()
            .filter_map(|(_, name)| Some((*name, env(name).filter(|value| !value.is_empty())?)))
            .collect();
        let mut mistakes = Vec::new();
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let Some((_, name)) = KNOWN.iter().find(|(known, _)| *known == flag) else {
                let known: Vec<_> = KNOWN.iter().map(|(known, _)| *known).collect();
                mistakes.push(format!("{flag:?} is not a flag: use {}", known.join(", ")));
                continue;
            };
            match inline.or_else(|| args.next()) {
                Some(value) => drop(values.insert(name, value)),
                None => mistakes.push(format!("{flag} needs a value")),
            }
        }
        Self { values, mistakes }
    }

    fn service(&mut self) -> Settings {
        let delay: Option<DelayMillis> = self.value("SHOP_DELAY_MS", "a number of milliseconds up to 60000");
        Settings {
            address: SocketAddr::new(
                self.value("SHOP_LISTEN", "an IP address").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                self.value("PORT", "a port from 0 to 65535").unwrap_or(0),
            ),
            delay: delay.map_or(Duration::ZERO, |delay| delay.0),
        }
    }

    fn value<T: FromStr>(&mut self, name: &str, hint: &str) -> Option<T> {
        let given = self.values.get(name)?;
        let value = given.parse().ok();
        if value.is_none() {
            self.mistakes.push(format!("{name}: {given:?} is not {hint}"));
        }
        value
    }

    fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn finish<T>(self, settings: T) -> Result<T, Mistakes> {
        if self.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(self.mistakes)) }
    }
}

struct DelayMillis(Duration);

impl FromStr for DelayMillis {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let millis = text.parse().map_err(drop)?;
        if millis > 60_000 { Err(()) } else { Ok(Self(Duration::from_millis(millis))) }
    }
}

const KNOWN: [(&str, &str); 6] = [
    ("--port", "PORT"),
    ("--outbound", "OUTRIGGER_OUTBOUND"),
    ("--names-port", "SHOP_NAMES_PORT"),
    ("--listen", "SHOP_LISTEN"),
    ("--version", "VERSION"),
    ("--delay-ms", "SHOP_DELAY_MS"),
];
const OUTBOUND_HINT: &str = "the address that calls go to, such as 127.0.0.1:15001";

#[cfg(test)]
mod tests {
    use super::*;

    const OUTBOUND: (&str, &str) = ("OUTRIGGER_OUTBOUND", "127.0.0.1:15001");

    fn reader(args: &[&str], env: &[(&str, &str)]) -> Reader {
        let env: HashMap<_, _> = env.iter().copied().collect();
        let args = args.iter().map(|arg| (*arg).to_owned());
        Reader::new(args, |name| env.get(name).map(|value| (*value).to_owned()))
    }

    fn caller(args: &[&str], env: &[(&str, &str)]) -> Result<CallerSettings, String> {
        CallerSettings::read(reader(args, env)).map_err(|mistakes| mistakes.to_string())
    }

    fn prices(args: &[&str], env: &[(&str, &str)]) -> Result<PricesSettings, String> {
        PricesSettings::read(reader(args, env)).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let env = [("PORT", "1"), ("VERSION", "v1"), ("SHOP_DELAY_MS", "")];
        let settings = prices(&["--version=v2", "--port", "8080"], &env).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let service = Settings { address, delay: Duration::ZERO };
        assert_eq!(settings, PricesSettings { service, version: Version::V2 });
    }

    #[test]
    fn only_prices_minds_the_version() {
        let env = [("VERSION", "2026.11"), OUTBOUND];
        assert_eq!(caller(&[], &env).unwrap().outbound, Way::One(SocketAddr::from(([127, 0, 0, 1], 15001))));
        assert_eq!(
            prices(&[], &env).unwrap_err(),
            "VERSION: \"2026.11\" is not a version of prices: v1 or v2"
        );
    }

    #[test]
    fn services_are_called_by_their_names_where_that_is_asked_for() {
        let settings = caller(&["--names-port", "8080", "--listen=::"], &[]).unwrap();
        assert_eq!(settings.outbound, Way::Names(8080));
        assert_eq!(settings.service.address.to_string(), "[::]:0");
    }

    #[test]
    fn the_missing_address_is_said_with_a_hint() {
        assert_eq!(
            caller(&[], &[]).unwrap_err(),
            "OUTRIGGER_OUTBOUND is not set: give the address that calls go to, such as 127.0.0.1:15001"
        );
    }

    #[test]
    fn all_mistakes_come_in_one_line() {
        let env = [("PORT", "http"), ("OUTRIGGER_OUTBOUND", "15001"), ("SHOP_DELAY_MS", "60001")];
        let mistakes = caller(&["--prot", "--port"], &env).unwrap_err();
        for part in ["\"--prot\"", "--port needs", "PORT: \"http\"", "\"15001\"", "\"60001\""] {
            assert!(mistakes.contains(part), "{part} is missing in: {mistakes}");
        }
        assert_eq!(mistakes.lines().count(), 1);
    }
}
