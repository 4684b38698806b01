//! A case: one sentence of the specification, what is written for it, and what is to be seen then.
//!
//! The same case is played before a service (the mesh profile) and at a gateway. Its texts name what differs by words:
//! `$NAME` is the name of its route and of its service or host, `$PARENT` the parents of its route, `$A` to `$C` backends
//! whose origins are called `a` to `c`.

use http::Method;

/// One sentence that says MUST.
pub(crate) struct Case {
    /// Its name in the table.
    pub(crate) id: &'static str,
    /// Where it stands: type and field, or section.
    pub(crate) place: &'static str,
    /// What it means, in our words.
    pub(crate) meaning: &'static str,
    /// What becomes of it in the mesh.
    pub(crate) mesh: Cell,
    /// What becomes of it at a gateway.
    pub(crate) gateway: Cell,
    /// What we do not do: the refusal is what is shown.
    pub(crate) unsupported: Option<&'static str>,
    /// What is done and seen, in this order.
    pub(crate) steps: Vec<Step>,
}

/// What becomes of a case in one of the two profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// It is so.
    Holds,
    /// It is not so, for this reason; the day it is, the suite says so.
    NotYet(&'static str),
    /// The sentence means nothing there.
    Nothing(&'static str),
}

/// Something that is done, and what is to be seen of it.
pub(crate) enum Step {
    /// Written, and in force everywhere.
    Apply(String),
    /// Written and refused; the refusal has this word.
    Refused(String, &'static str),
    /// Taken away: the kind as the API calls it, the namespace and the name.
    Delete(&'static str, &'static str, &'static str),
    /// Asked.
    Ask(Ask),
    /// A condition of one of a route's parents.
    Condition(Condition),
    /// A field of the status of the case's own HTTPRoute, by its JSON pointer: this text, or anything for `*`.
    Field(&'static str, &'static str),
}

/// What the status of a route is to say.
pub(crate) struct Condition {
    /// The kind of the route, as the API calls it.
    pub(crate) kind: &'static str,
    /// Its namespace and name.
    pub(crate) route: (&'static str, &'static str),
    /// Which of its parents.
    pub(crate) parent: usize,
    /// The type, the status and the reason of the condition; no status: it is not there; no reason: any.
    pub(crate) wanted: (&'static str, Option<&'static str>, &'static str),
    /// A word of its message.
    pub(crate) word: &'static str,
}

/// A case of which nothing is written yet.
pub(crate) fn case(id: &'static str, place: &'static str, meaning: &'static str) -> Case {
    let (mesh, gateway) = (Cell::Holds, Cell::Holds);
    Case { id, place, meaning, mesh, gateway, unsupported: None, steps: vec![] }
}

impl Case {
    /// An HTTPRoute with these rules.
    pub(crate) fn rules(self, rules: &str) -> Self {
        self.apply(&http_route(rules))
    }

    /// A GRPCRoute with these rules.
    pub(crate) fn grpc_rules(self, rules: &str) -> Self {
        self.apply(&grpc_route(rules))
    }

    /// Objects as they stand.
    pub(crate) fn apply(self, yaml: &str) -> Self {
        self.step(Step::Apply(yaml.to_owned()))
    }

    /// An HTTPRoute with these rules is refused.
    pub(crate) fn refuses(self, rules: &str, word: &'static str) -> Self {
        self.refuses_all(&http_route(rules), word)
    }

    /// A GRPCRoute with these rules is refused.
    pub(crate) fn refuses_grpc(self, rules: &str, word: &'static str) -> Self {
        self.refuses_all(&grpc_route(rules), word)
    }

    /// Objects that are refused.
    pub(crate) fn refuses_all(self, yaml: &str, word: &'static str) -> Self {
        self.step(Step::Refused(yaml.to_owned(), word))
    }

    /// A route that names something of its parent that is not there is refused, and told where it is taken all the same.
    pub(crate) fn no_parent(self, yaml: &str) -> Self {
        self.refuses_all(yaml, "/spec/parentRefs/0").apply(yaml).says("Accepted", "False", "NoMatchingParent")
    }

    /// An object is taken away.
    pub(crate) fn delete(self, kind: &'static str, namespace: &'static str, name: &'static str) -> Self {
        self.step(Step::Delete(kind, namespace, name))
    }

    /// A request and what becomes of it.
    pub(crate) fn ask(self, ask: Ask) -> Self {
        self.step(Step::Ask(ask))
    }

    /// What the status of the case's own HTTPRoute says.
    pub(crate) fn says(self, kind: &'static str, status: &'static str, reason: &'static str) -> Self {
        self.tells("httproutes", ("shop", "$NAME"), (kind, Some(status), reason), "")
    }

    /// The same of its parent of this number.
    pub(crate) fn says_of(
        self,
        parent: usize,
        kind: &'static str,
        status: &'static str,
        reason: &'static str,
    ) -> Self {
        let (route, wanted) = (("shop", "$NAME"), (kind, Some(status), reason));
        self.step(Step::Condition(Condition { kind: "httproutes", route, parent, wanted, word: "" }))
    }

    /// What stands in the status of its HTTPRoute at this JSON pointer; `*` is anything.
    pub(crate) fn has(self, pointer: &'static str, text: &'static str) -> Self {
        self.step(Step::Field(pointer, text))
    }

    /// What the status of a route says.
    pub(crate) fn tells(
        self,
        kind: &'static str,
        route: (&'static str, &'static str),
        wanted: (&'static str, Option<&'static str>, &'static str),
        word: &'static str,
    ) -> Self {
        self.step(Step::Condition(Condition { kind, route, parent: 0, wanted, word }))
    }

    /// What becomes of it in the mesh.
    pub(crate) fn mesh(self, mesh: Cell) -> Self {
        Self { mesh, ..self }
    }

    /// What becomes of it at a gateway.
    pub(crate) fn gateway(self, gateway: Cell) -> Self {
        Self { gateway, ..self }
    }

    /// It has a meaning in the mesh only.
    pub(crate) fn in_the_mesh(self) -> Self {
        self.gateway(Cell::Nothing("of the mesh alone"))
    }

    /// It has a meaning at a gateway only.
    pub(crate) fn at_a_gateway(self) -> Self {
        self.mesh(Cell::Nothing("of gateways alone"))
    }

    /// We do not do it and say so.
    pub(crate) fn unsupported(self, why: &'static str) -> Self {
        Self { unsupported: Some(why), ..self }
    }

    /// Whether it is shown by what is refused.
    pub(crate) fn is_refusal(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Refused(..)))
            && !self
                .steps
                .iter()
                .any(|step| matches!(step, Step::Ask(_) | Step::Condition(_) | Step::Field(..)))
    }

    /// One more step.
    pub(crate) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// A request, and what becomes of it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// The host it names; none: the case's own.
    pub(crate) host: Option<&'static str>,
    /// The listener's port, at a gateway.
    pub(crate) port: u16,
    pub(crate) http2: bool,
    /// How often it is asked.
    pub(crate) times: usize,
    /// It belongs to the session that the answers before began: the header that names it; empty for a cookie.
    pub(crate) session: Option<&'static str>,
    pub(crate) wanted: Vec<Seen>,
}

/// Something that is to be seen of a request.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// The status of the answer.
    Status(u16),
    /// The status of a call of gRPC.
    Grpc(u16),
    /// The origin that answered.
    From(&'static str),
    /// A header at the origin; none: it is not there. Several of one name are joined by commas.
    Sent(&'static str, Option<&'static str>),
    /// The target at the origin.
    Target(&'static str),
    /// A header of the answer; none: it is not there.
    Told(&'static str, Option<&'static str>),
    /// A header of the answer, of which one of these is the value.
    ToldOneOf(&'static str, &'static [&'static str]),
    /// Of a hundred requests so many come from there: the name of an origin, or a status.
    Share(&'static str, u32),
    /// How often it arrived at an origin (`a+b`: at both together), at least and at most, answered or not.
    Arrived(&'static str, usize, usize),
    /// How long it took, in milliseconds, at least and at most.
    Took(u64, u64),
    /// The origin that answered the request before answers again.
    Stays,
    /// A header of the answer has this word, or has it not.
    Word(&'static str, &'static str, bool),
}

/// A GET of `path`.
pub(crate) fn get(path: &'static str) -> Ask {
    send(Method::GET, path)
}

/// A request with `method`.
pub(crate) fn send(method: Method, path: &'static str) -> Ask {
    Ask {
        method,
        path,
        headers: vec![],
        host: None,
        port: 80,
        http2: false,
        times: 1,
        session: None,
        wanted: vec![],
    }
}

/// A call of gRPC.
pub(crate) fn call(path: &'static str) -> Ask {
    let ask = send(Method::POST, path).header("content-type", "application/grpc").header("te", "trailers");
    Ask { http2: true, ..ask }
}

impl Ask {
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn host(self, host: &'static str) -> Self {
        Self { host: Some(host), ..self }
    }

    pub(crate) fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    pub(crate) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// `origin` answers.
    pub(crate) fn to(self, origin: &'static str) -> Self {
        self.wants(Seen::From(origin))
    }

    pub(crate) fn status(self, status: u16) -> Self {
        self.wants(Seen::Status(status))
    }

    pub(crate) fn grpc(self, status: u16) -> Self {
        self.wants(Seen::Grpc(status))
    }

    pub(crate) fn sends(self, name: &'static str, value: &'static str) -> Self {
        self.wants(Seen::Sent(name, Some(value)))
    }

    pub(crate) fn sends_no(self, name: &'static str) -> Self {
        self.wants(Seen::Sent(name, None))
    }

    pub(crate) fn asks_for(self, target: &'static str) -> Self {
        self.wants(Seen::Target(target))
    }

    pub(crate) fn tells(self, name: &'static str, value: &'static str) -> Self {
        self.wants(Seen::Told(name, Some(value)))
    }

    pub(crate) fn tells_one_of(self, name: &'static str, values: &'static [&'static str]) -> Self {
        self.wants(Seen::ToldOneOf(name, values))
    }

    pub(crate) fn tells_no(self, name: &'static str) -> Self {
        self.wants(Seen::Told(name, None))
    }

    pub(crate) fn share(self, of: &'static str, percent: u32) -> Self {
        self.wants(Seen::Share(of, percent))
    }

    pub(crate) fn arrives(self, origin: &'static str, times: usize) -> Self {
        self.wants(Seen::Arrived(origin, times, times))
    }

    pub(crate) fn arrives_about(self, origin: &'static str, least: usize, most: usize) -> Self {
        self.wants(Seen::Arrived(origin, least, most))
    }

    pub(crate) fn took(self, least: u64, most: u64) -> Self {
        self.wants(Seen::Took(least, most))
    }

    /// It belongs to the session that the answer before began, and meets the same origin.
    pub(crate) fn in_session(self, header: &'static str) -> Self {
        Self { session: Some(header), ..self }.wants(Seen::Stays)
    }

    /// Who answered the request before answers this one.
    pub(crate) fn stays(self) -> Self {
        self.wants(Seen::Stays)
    }

    pub(crate) fn word(self, header: &'static str, word: &'static str) -> Self {
        self.wants(Seen::Word(header, word, true))
    }

    pub(crate) fn no_word(self, header: &'static str, word: &'static str) -> Self {
        self.wants(Seen::Word(header, word, false))
    }

    fn wants(mut self, seen: Seen) -> Self {
        self.wanted.push(seen);
        self
    }
}

/// An HTTPRoute of the case's name and parents.
pub(crate) fn http_route(rules: &str) -> String {
    route("HTTPRoute", "$NAME", rules)
}

/// A GRPCRoute of the case's name and parents.
pub(crate) fn grpc_route(rules: &str) -> String {
    route("GRPCRoute", "$NAME", rules)
}

/// A route of the case's parents under a name of its own.
pub(crate) fn route(kind: &str, name: &str, rules: &str) -> String {
    route_of(kind, ("shop", name), "$PARENT", "$HOSTNAMES", rules)
}

/// A route of the Gateway API; `hostnames` is a list, or nothing.
pub(crate) fn route_of(
    kind: &str,
    (namespace, name): (&str, &str),
    parents: &str,
    hostnames: &str,
    rules: &str,
) -> String {
    let hostnames = match hostnames {
        "$HOSTNAMES" => hostnames.to_owned(),
        "" => String::new(),
        list => format!("  hostnames: {list}\n"),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  parentRefs: {parents}\n{hostnames}  rules: {rules}\n"
    )
}

/// Objects, one after the other.
pub(crate) fn all(objects: &[String]) -> String {
    objects.join("---\n")
}
