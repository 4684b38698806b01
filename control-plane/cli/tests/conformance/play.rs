//! Plays the cases of a subject, a few at a time, and tells all that did not go as its row says.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use http::{HeaderName, HeaderValue};
use outrigger_testkit::{Client, Reply, Seen as Arrived, request};

use crate::case::{Ask, Case, Cell, Condition, Seen, Step};
use crate::known;
use crate::look::{brief, grpc_status, origin_of, same, sent, share, target_of, told};
use crate::stage::Stage;

/// Whose rules a case is played by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Mesh,
    Gateway,
}

/// Plays all of them in both profiles.
pub(crate) async fn play(cases: Vec<Case>) {
    let stage = &Stage::new().await;
    let only = std::env::var("OUTRIGGER_CASE").unwrap_or_default();
    let runs = cases.iter().enumerate().filter(|(_, case)| case.id.contains(&only));
    let runs = runs.flat_map(|(i, case)| [(i, case, Profile::Mesh), (i, case, Profile::Gateway)]);
    let told = futures_util::stream::iter(runs).map(|(i, case, profile)| verdict(stage, i, case, profile));
    let told: Vec<Option<String>> = told.buffer_unordered(TOGETHER).collect().await;
    let mut wrong: Vec<String> = told.into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "{} rows of the table are not so:\n{}", wrong.len(), wrong.join("\n"));
}

/// How many cases are played at a time.
const TOGETHER: usize = 4;

/// What is wrong with a row, if anything is.
async fn verdict(stage: &Stage, number: usize, case: &Case, profile: Profile) -> Option<String> {
    let cell = match profile {
        Profile::Mesh => case.mesh,
        Profile::Gateway => case.gateway,
    };
    let seen = match cell {
        Cell::Nothing(_) => return None,
        Cell::Holds | Cell::NotYet(_) => Run::new(stage, number, profile).case(case).await,
    };
    match (cell, seen) {
        (Cell::NotYet(_), Ok(())) if known::STRICT => {
            Some(format!("{} {profile:?}: it is so by now, let its row say that", case.id))
        }
        (Cell::Holds, Err(what)) => Some(format!("{} {profile:?}: {what}", case.id)),
        _ => None,
    }
}

/// One case in one profile.
struct Run<'a> {
    stage: &'a Stage,
    profile: Profile,
    name: String,
    /// How long is waited for what is to be seen.
    patience: Duration,
    /// What the last answer said of a session, and who gave it.
    before: Option<Reply>,
}

impl<'a> Run<'a> {
    fn new(stage: &'a Stage, number: usize, profile: Profile) -> Self {
        let of = if profile == Profile::Mesh { 'm' } else { 'g' };
        // What was acknowledged is obeyed.
        let patience = Duration::ZERO;
        Self { stage, profile, name: format!("case{number}{of}"), patience, before: None }
    }

    async fn case(mut self, case: &Case) -> Result<(), String> {
        if self.profile == Profile::Mesh {
            self.stage.apply(&self.said(FRONT), false).await.map_err(|e| format!("its service: {e}"))?;
        }
        for (i, step) in case.steps.iter().enumerate() {
            self.step(step).await.map_err(|what| format!("step {}: {what}", i + 1))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Apply(yaml) => self.stage.apply(&self.said(yaml), true).await,
            Step::Refused(yaml, word) => match self.stage.apply(&self.said(yaml), false).await {
                Ok(()) => Err("it is taken, and should be refused".into()),
                Err(what) if !what.contains(&self.said(word)) => {
                    Err(format!("it is refused, but not for {word}: {what}"))
                }
                Err(_) => Ok(()),
            },
            Step::Delete(kind, namespace, name) => {
                // Nobody waits for what is taken away.
                self.patience = PATIENCE;
                self.stage.delete(kind, &self.said(namespace), &self.said(name)).await
            }
            Step::Ask(ask) => {
                let mut tries = Tries::new(self.patience);
                loop {
                    match self.ask(ask).await {
                        Err(_) if tries.another().await => {}
                        Err(what) => return Err(format!("{} {}: {what}", ask.method, ask.path)),
                        Ok(last) => {
                            self.before = last;
                            return Ok(());
                        }
                    }
                }
            }
            Step::Condition(condition) => {
                let mut tries = Tries::new(self.patience);
                loop {
                    match self.condition(condition).await {
                        Err(_) if tries.another().await => {}
                        seen => return seen,
                    }
                }
            }
            Step::Field(pointer, wanted) => {
                let status = self.stage.read("httproutes", "shop", &self.name).await?["status"].clone();
                let told =
                    status.pointer(pointer).map(|v| v.as_str().map_or(v.to_string(), ToOwned::to_owned));
                match told {
                    Some(told) if *wanted == "*" || told == self.said(wanted) => Ok(()),
                    told => Err(format!("{pointer} is {told:?}, not {wanted}: {}", brief(&status))),
                }
            }
        }
    }

    /// A text of a case, for this run.
    fn said(&self, text: &str) -> String {
        let (parent, hostnames) = match self.profile {
            Profile::Mesh => ("[{group: \"\", kind: Service, name: $NAME}]", ""),
            Profile::Gateway => {
                ("[{name: edge, namespace: shop, sectionName: web}]", "  hostnames: [$NAME.example]\n")
            }
        };
        let backend = |name: &str| format!("{{name: {name}, port: 80}}");
        text.replace("$PARENT", parent)
            .replace("$HOSTNAMES", hostnames)
            .replace("$NAME", &self.name)
            .replace("$A", &backend("a"))
            .replace("$B", &backend("b"))
            .replace("$C", &backend("c"))
            .replace("$PORT-A", &self.stage.origin("a").addr().port().to_string())
            .replace("$PORT-B", &self.stage.origin("b").addr().port().to_string())
    }

    /// Asks and looks; the last answer.
    async fn ask(&self, ask: &Ask) -> Result<Option<Reply>, String> {
        let at = match self.profile {
            Profile::Mesh => self.stage.web.outbound,
            Profile::Gateway => self.stage.listener(ask.port),
        };
        let host = match (ask.host, self.profile) {
            (Some(host), _) => self.said(host),
            (None, Profile::Mesh) => self.name.clone(),
            (None, Profile::Gateway) => format!("{}.example", self.name),
        };
        let mark = format!("{}-{}", self.name, ASKED.fetch_add(1, Relaxed));
        let mut client = if ask.http2 { Client::h2(at).await } else { Client::h1(at).await };
        let mut replies = Vec::with_capacity(ask.times);
        let began = Instant::now();
        for _ in 0..ask.times {
            let body = if ask.http2 { &b"\0\0\0\0\0"[..] } else { &b""[..] };
            let mut sent = request(ask.method.clone(), &host, &self.said(ask.path), body.into());
            let headers = ask.headers.iter().map(|(name, value)| (*name, self.said(value)));
            let session = ask.session.map(|name| self.session(name)).transpose()?;
            for (name, value) in headers.chain([(MARK, mark.clone())]).chain(session) {
                let value = HeaderValue::from_str(&value).map_err(|e| e.to_string())?;
                sent.headers_mut().append(HeaderName::from_static(name), value);
            }
            let reply = tokio::time::timeout(ANSWERED, client.send(sent)).await;
            let reply = reply.map_err(|_| "there is no answer")?.map_err(|e| format!("{e:#}"))?;
            replies.push(reply);
            if client.is_closed() {
                client = if ask.http2 { Client::h2(at).await } else { Client::h1(at).await };
            }
        }
        let took = began.elapsed();
        for wanted in &ask.wanted {
            self.seen(wanted, &replies, (took, &mark)).await?;
        }
        Ok(replies.pop())
    }

    /// What the answer before gave to say again: a cookie, or the header of this name.
    fn session(&self, name: &'static str) -> Result<(&'static str, String), String> {
        let before = self.before.as_ref().ok_or("nothing was answered before")?;
        if name.is_empty() {
            let cookie = told(before, "set-cookie").ok_or("no cookie was set")?;
            return Ok(("cookie", cookie.split(';').next().unwrap_or_default().to_owned()));
        }
        Ok((name, told(before, name).ok_or_else(|| format!("no {name} was told"))?))
    }

    async fn seen(
        &self,
        wanted: &Seen,
        replies: &[Reply],
        (took, mark): (Duration, &str),
    ) -> Result<(), String> {
        let asked_of_all = |holds: &dyn Fn(&Reply) -> Result<(), String>| {
            replies.iter().try_for_each(|reply| {
                holds(reply).map_err(|what| {
                    format!("{what}\n    {} {:?} {}", reply.status, reply.headers, reply.text())
                })
            })
        };
        match wanted {
            Seen::Status(status) => asked_of_all(&|r| same("the status", r.status.as_u16(), *status)),
            Seen::Grpc(status) => {
                asked_of_all(&|r| same("the status of gRPC", grpc_status(r), Some(*status)))
            }
            Seen::From(origin) => asked_of_all(&|r| same("who answers", origin_of(r), (*origin).to_owned())),
            Seen::Sent(name, value) => {
                let value = value.map(|value| self.said(value));
                asked_of_all(&|r| same(&format!("{name} at the origin"), sent(r, name), value.clone()))
            }
            Seen::Target(target) => {
                asked_of_all(&|r| same("the target at the origin", target_of(r), (*target).to_owned()))
            }
            Seen::Told(name, value) => {
                let value = value.map(|value| self.said(value));
                asked_of_all(&|r| same(&format!("{name} of the answer"), told(r, name), value.clone()))
            }
            Seen::ToldOneOf(name, values) => asked_of_all(&|r| {
                let own = told(r, name);
                if values.iter().any(|v| own.as_deref() == Some(*v)) {
                    Ok(())
                } else {
                    Err(format!("{name} of the answer is {own:?}, not one of {values:?}"))
                }
            }),
            Seen::Share(of, percent) => share(replies, of, *percent),
            Seen::Arrived(origin, least, most) => self.arrived(origin, mark, *least, *most).await,
            Seen::Took(least, most) => {
                let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                if (*least..=*most).contains(&took) {
                    Ok(())
                } else {
                    Err(format!("it took {took} ms, not {least} to {most}"))
                }
            }
            Seen::Stays => {
                let before = self.before.as_ref().map(origin_of).unwrap_or_default();
                asked_of_all(&|r| same("who answers", origin_of(r), before.clone()))
            }
            Seen::Word(name, word, there) => asked_of_all(&|r| {
                let own = told(r, name).unwrap_or_default().to_ascii_lowercase();
                let (word, its) = (word.to_ascii_lowercase(), own.contains(&word.to_ascii_lowercase()));
                if its == *there { Ok(()) } else { Err(format!("{name} is {own:?}; {word}: {there}")) }
            }),
        }
    }

    /// How often what was asked arrived at an origin. What nobody waits for may come a little later.
    async fn arrived(&self, origin: &str, mark: &str, least: usize, most: usize) -> Result<(), String> {
        let own = |seen: &Arrived| seen.header(MARK) == Some(mark);
        let at = |name| self.stage.origin(name).seen().iter().filter(|seen| own(seen)).count();
        let count = || origin.split('+').map(at).sum::<usize>();
        let end = Instant::now() + PATIENCE;
        while count() < least && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(SETTLED).await;
        if (least..=most).contains(&count()) {
            Ok(())
        } else {
            Err(format!("{} arrived at {origin}, not {least} to {most}", count()))
        }
    }

    async fn condition(&self, wanted: &Condition) -> Result<(), String> {
        let (namespace, name) = (self.said(wanted.route.0), self.said(wanted.route.1));
        let object = self.stage.read(wanted.kind, &namespace, &name).await?;
        let status = &object["status"];
        let conditions =
            status["parents"][wanted.parent]["conditions"].as_array().cloned().unwrap_or_default();
        let (kind, value, reason) = wanted.wanted;
        let own = conditions.iter().find(|c| c["type"] == kind);
        let holds = match (own, value) {
            (None, None) => true,
            (Some(own), Some(value)) => {
                let message = own["message"].as_str().unwrap_or_default();
                own["status"] == value
                    && (reason.is_empty() || own["reason"] == reason)
                    && message.contains(&self.said(wanted.word))
            }
            _ => false,
        };
        if holds { Ok(()) } else { Err(format!("{kind} is to be {value:?} {reason}: {}", brief(status))) }
    }
}

/// How often something is looked at: for so long, and three times at least.
struct Tries {
    end: Instant,
    left: u8,
}

impl Tries {
    fn new(patience: Duration) -> Self {
        Self { end: Instant::now() + patience, left: if patience.is_zero() { 0 } else { 2 } }
    }

    /// Whether it is looked at once more, after a moment.
    async fn another(&mut self) -> bool {
        if self.left == 0 && Instant::now() >= self.end {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        true
    }
}

/// The service whose callers a case is about. It has no instance of its own.
const FRONT: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: $NAME, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
";

/// By which a request is known wherever it arrives.
const MARK: &str = "x-asked";
const PATIENCE: Duration = Duration::from_secs(3);
/// How long is waited for an answer: longer than any row says that it takes.
const ANSWERED: Duration = Duration::from_secs(12);
/// How long is waited for what must not come.
const SETTLED: Duration = Duration::from_millis(80);
static ASKED: AtomicUsize = AtomicUsize::new(0);
