//! `[otlp]`, and OpenTelemetry's variables where it is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::{Resolver, read_section};
use crate::config::chain::Level;
use crate::config::duration::format_duration;
use crate::config::layer::{KeyPath, Step, quoted};
use crate::config::leaf::{CollectorUrl, Use};
use crate::config::mistake::Mistake;
use crate::config::otlp::{Collector, OtlpProtocol, Sampled, Signal, Temporality};
use crate::config::place::Place;
use crate::config::print::MASK;
use crate::config::read::{Field, nearest};
use crate::config::{Otlp, Secret, SecretSource, TlsOptions, raw};

/// Where keys come from that nobody gave.
const USUAL: &str = "the usual";

/// Between exports of metrics, in milliseconds: what `raw::LookupInterval` has as the file's.
const SHORTEST_INTERVAL: u64 = 1_000;

impl Resolver<'_, '_> {
    /// What is pushed; `None` if nothing is.
    pub(super) fn otlp(&mut self, warnings: &mut Vec<String>) -> Option<Otlp> {
        let table = self.layers.merged().get("otlp");
        let is_set = |name: &str| variable_is_set(self.variable, name);
        let wanted = |signal: Signal| {
            table.is_some()
                || is_set("OTEL_EXPORTER_OTLP_ENDPOINT")
                || is_set(&own(signal, "ENDPOINT"))
        };
        if !Signal::ALL.into_iter().any(wanted) {
            return None;
        }
        let mut reading = Reading::default();
        if self.flag("OTEL_SDK_DISABLED") == Some(true) {
            if table.is_some() {
                warnings.push(
                    "otlp: nothing is pushed, for OTEL_SDK_DISABLED=true is set; unset it, or \
                     remove the table"
                        .to_owned(),
                );
            }
            return None;
        }
        let wanted = Signal::ALL.map(wanted);
        let raw: raw::Otlp = read_section(table);
        let empty = Dict::new();
        let dict = table.and_then(Value::as_dict).unwrap_or(&empty);
        let level = Level::new(dict, vec!["otlp".into()], None);

        let headers = self.otlp_headers(&level, &raw);
        let tls = self.otlp_tls(&level, &raw);
        if tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            warnings.push(
                "otlp.tls.insecure_skip_verify takes any certificate: anybody on the way can read \
                 and change what is sent; trust the collector's own by otlp.tls.ca"
                    .to_owned(),
            );
        }
        let mut collectors = Vec::new();
        let mut any_is_on = false;
        for (signal, wanted) in std::iter::zip(Signal::ALL, wanted) {
            let is_on = if wanted {
                self.is_on(&raw, signal, &mut reading)
            } else {
                reading.say(
                    signal.as_str(),
                    "false".to_owned(),
                    "no endpoint is set for it",
                );
                false
            };
            any_is_on |= is_on;
            let collector = is_on.then(|| {
                let headers = headers.as_deref();
                self.collector(&raw, signal, headers, tls.as_ref(), &mut reading)
            });
            collectors.push(collector.flatten().map(Arc::new));
        }
        let logs = collectors.pop().flatten();
        let traces = collectors.pop().flatten();
        let metrics = collectors.pop().flatten();
        if !any_is_on {
            return None;
        }
        let interval = match &raw.interval {
            Field::Set(interval, _) => interval.0,
            Field::Absent | Field::Bad => {
                let name = "OTEL_METRIC_EXPORT_INTERVAL";
                let said = self.millis(name, SHORTEST_INTERVAL);
                let interval = said.unwrap_or(Duration::from_secs(30));
                let from = said.map_or(USUAL, |_| name);
                reading.say("interval", quoted(&format_duration(interval)), from);
                interval
            }
        };
        let span_delay = self.delay(Signal::Traces, "OTEL_BSP_SCHEDULE_DELAY", &mut reading);
        let log_delay = self.delay(Signal::Logs, "OTEL_BLRP_SCHEDULE_DELAY", &mut reading);
        Some(Otlp {
            metrics,
            traces,
            logs,
            interval,
            span_delay: span_delay.unwrap_or(Duration::from_secs(5)),
            log_delay: log_delay.unwrap_or(Duration::from_secs(1)),
            rtt: self.temporality(&raw, &mut reading),
            sampled: self.sampled(&mut reading),
            resource: self.resource(&raw, &mut reading),
            derived: reading.derived,
            remarks: reading.remarks,
        })
    }

    /// Whether a signal is exported, its endpoint aside.
    fn is_on(&mut self, raw: &raw::Otlp, signal: Signal, reading: &mut Reading) -> bool {
        let endpoint = own(signal, "ENDPOINT");
        let (field, usual) = match signal {
            Signal::Metrics => (&raw.metrics, (true, USUAL)),
            Signal::Traces => (&raw.traces, (true, USUAL)),
            // Who says where they go wants them to.
            Signal::Logs => match variable_is_set(self.variable, &endpoint) {
                true => (&raw.logs, (true, endpoint.as_str())),
                false => (&raw.logs, (false, USUAL)),
            },
        };
        if let Some(said) = field.get() {
            return *said;
        }
        let name = format!("OTEL_{}_EXPORTER", signal.as_str().to_uppercase());
        let (on, from) = match self.text(&name).as_deref() {
            Some("otlp") => (true, name.as_str()),
            Some("none") => (false, name.as_str()),
            // A comma-separated list, of which only ours is any of our business: a scrape is
            // there whether or not "prometheus" is asked for here.
            Some(list) => (
                list.split(',').any(|one| one.trim() == "otlp"),
                name.as_str(),
            ),
            None => usual,
        };
        reading.say(signal.as_str(), on.to_string(), from);
        on
    }

    fn collector(
        &mut self,
        raw: &raw::Otlp,
        signal: Signal,
        headers: Option<&[(http::HeaderName, SecretSource)]>,
        tls: Option<&Arc<TlsOptions>>,
        reading: &mut Reading,
    ) -> Option<Collector> {
        let protocol = self.protocol(raw, signal, reading)?;
        let place = self.place_of(raw, signal, protocol, reading)?;
        let timeout = match &raw.timeout {
            Field::Set(timeout, _) => timeout.0,
            Field::Absent | Field::Bad => {
                let said = self.first(signal, "TIMEOUT");
                let said = said
                    .and_then(|(name, text)| Some((self.parsed_millis(&name, &text, 1)?, name)));
                let (timeout, from) = said.unwrap_or((Duration::from_secs(10), USUAL.to_owned()));
                reading.say_of(signal, "timeout", quoted(&format_duration(timeout)), &from);
                timeout
            }
        };
        let gzip = match &raw.compression {
            Field::Set(gzip, _) => gzip.0,
            Field::Absent | Field::Bad => {
                let said = self.first(signal, "COMPRESSION");
                let (word, from) = said.as_ref().map_or(("none", USUAL), |(n, t)| (t, n));
                let gzip = match word {
                    "gzip" => true,
                    "none" => false,
                    _ => {
                        self.wrong_variable(
                            from,
                            "expected gzip or none; or write otlp.compression",
                        );
                        false
                    }
                };
                let word = if gzip { "gzip" } else { "none" };
                reading.say_of(signal, "compression", quoted(word), from);
                gzip
            }
        };
        let headers = match headers {
            Some(headers) => headers.to_vec(),
            None => self.headers_of_variables(signal, reading),
        };
        let tls = match tls {
            Some(tls) => tls.clone(),
            None => self.tls_of_variables(signal, reading),
        };
        Some(Collector {
            place,
            protocol,
            timeout,
            headers,
            gzip,
            tls,
        })
    }

    fn protocol(
        &mut self,
        raw: &raw::Otlp,
        signal: Signal,
        reading: &mut Reading,
    ) -> Option<OtlpProtocol> {
        match &raw.protocol {
            Field::Set(protocol, _) => return Some(*protocol),
            Field::Bad => return None,
            Field::Absent => {}
        }
        let said = self.first(signal, "PROTOCOL");
        let (word, from) = said
            .as_ref()
            .map_or(("http/protobuf", USUAL), |(n, t)| (t, n));
        let protocol = match word {
            "grpc" => OtlpProtocol::Grpc,
            "http/protobuf" => OtlpProtocol::HttpProtobuf,
            _ => {
                let wrong = "expected grpc or http/protobuf; or write otlp.protocol";
                self.wrong_variable(from, wrong);
                return None;
            }
        };
        reading.say_of(signal, "protocol", quoted(protocol.as_str()), from);
        Some(protocol)
    }

    /// Where a signal goes. By gRPC the path is the service's; a signal's own variable holds the
    /// whole URL, what is else said the base of all.
    fn place_of(
        &mut self,
        raw: &raw::Otlp,
        signal: Signal,
        protocol: OtlpProtocol,
        reading: &mut Reading,
    ) -> Option<Place> {
        let (mut place, is_base) = match &raw.endpoint {
            Field::Set(url, _) => (url.0.clone(), true),
            Field::Bad => return None,
            Field::Absent => {
                let usual = match protocol {
                    OtlpProtocol::Grpc => "http://localhost:4317",
                    OtlpProtocol::HttpProtobuf => "http://localhost:4318",
                };
                let said = self.first(signal, "ENDPOINT");
                let (name, text) = said.unwrap_or_else(|| (USUAL.to_owned(), usual.to_owned()));
                // The one URL without a scheme that the specification knows.
                let text = match text.contains("://") || protocol == OtlpProtocol::HttpProtobuf {
                    true => text,
                    false => match self.insecure(signal) {
                        true => format!("http://{text}"),
                        false => format!("https://{text}"),
                    },
                };
                let place = match CollectorUrl::parse(&text) {
                    Ok(url) => url.0,
                    Err(wrong) => {
                        self.wrong_variable(&name, &wrong);
                        return None;
                    }
                };
                reading.say_of(signal, "endpoint", quoted(&place.to_string()), &name);
                let is_base = name == USUAL || name == "OTEL_EXPORTER_OTLP_ENDPOINT";
                (place, is_base)
            }
        };
        if protocol == OtlpProtocol::Grpc {
            let service = match signal {
                Signal::Metrics => "metrics.v1.MetricsService",
                Signal::Traces => "trace.v1.TraceService",
                Signal::Logs => "logs.v1.LogsService",
            };
            place.path = format!("/opentelemetry.proto.collector.{service}/Export");
        } else if is_base {
            let (path, query) = match place.path.split_once('?') {
                Some((path, query)) => (path, format!("?{query}")),
                None => (place.path.as_str(), String::new()),
            };
            let path = path.trim_end_matches('/');
            place.path = format!("{path}/v1/{}{query}", signal.as_str());
        }
        Some(place)
    }

    fn insecure(&mut self, signal: Signal) -> bool {
        let said = self.first(signal, "INSECURE");
        said.is_some_and(|(_, text)| text.eq_ignore_ascii_case("true"))
    }

    /// The file's headers; `None` if it has no such table.
    fn otlp_headers(
        &mut self,
        level: &Level<'_>,
        raw: &raw::Otlp,
    ) -> Option<Vec<(http::HeaderName, SecretSource)>> {
        let table = raw.headers.get()?;
        let headers = table.0.values().map(|(name, sourced)| {
            let key = super::connection::written(level, name);
            let source = self.source(level, &["headers".into(), key], sourced, Use::Header);
            (name.clone(), source)
        });
        Some(headers.collect())
    }

    /// `name=value,name=value`, values percent-encoded (W3C Baggage). What is wrong is not shown.
    fn headers_of_variables(
        &mut self,
        signal: Signal,
        reading: &mut Reading,
    ) -> Vec<(http::HeaderName, SecretSource)> {
        let Some((variable, text)) = self.first(signal, "HEADERS") else {
            return Vec::new();
        };
        let mut headers = Vec::new();
        for (n, pair) in text.split(',').enumerate() {
            if pair.trim().is_empty() {
                continue;
            }
            match header(pair) {
                Ok(header) => headers.push(header),
                Err(wrong) => {
                    let n = n + 1;
                    self.wrong_variable(
                        &variable,
                        &format!(
                            "entry {n} {wrong}; write NAME=VALUE,NAME=VALUE, values percent-encoded"
                        ),
                    );
                }
            }
        }
        let shown = headers.iter().map(|(name, _)| {
            let name = KeyPath(&[name.as_str().into()]).to_string();
            format!("{name} = {MASK}")
        });
        let shown = format!("{{ {} }}", shown.collect::<Vec<_>>().join(", "));
        reading.say_of(signal, "headers", shown, &variable);
        headers
    }

    /// The file's TLS; `None` if it has no such table.
    fn otlp_tls(&mut self, level: &Level<'_>, raw: &raw::Otlp) -> Option<Arc<TlsOptions>> {
        let tls = raw.tls.get()?;
        let usual = TlsOptions::default();
        let mut wrong = Vec::new();
        let has = |field: &Field<_>| !matches!(field, Field::Absent);
        match (has(&tls.cert), has(&tls.key)) {
            (true, false) => wrong.push(("cert", "needs its private `key`; add it")),
            (false, true) => wrong.push(("key", "needs the `cert` it belongs to; add it")),
            (true, true) | (false, false) => {}
        }
        let ca_only = tls.ca_only.get().copied().unwrap_or(usual.ca_only);
        if ca_only && !has(&tls.ca) {
            wrong.push(("ca_only", "needs a `ca`: else nothing is trusted"));
        }
        let min_version = tls.min_version.get().copied().unwrap_or(usual.min_version);
        let max_version = tls.max_version.get().copied().unwrap_or(usual.max_version);
        if min_version > max_version {
            let words = "min_version (1.3) must not be above max_version (1.2)";
            let key = if has_version(&tls.min_version) {
                "min_version"
            } else {
                "max_version"
            };
            wrong.push((key, words));
        }
        let path = |key: &str| [Step::from("tls"), Step::from(key)];
        for (key, message) in wrong {
            self.mistake_at(level, &path(key), message);
        }
        let source =
            |field: &Field<crate::config::leaf::Pem>| field.get().map(|pem| self.placed(&pem.0));
        let options = TlsOptions {
            ca: source(&tls.ca),
            ca_only,
            cert: source(&tls.cert),
            key: source(&tls.key),
            server_name: tls.server_name.get().map(|name| name.0.clone()),
            min_version,
            max_version,
            insecure_skip_verify: tls.insecure_skip_verify.get().copied().unwrap_or(false),
            session_tickets: tls.session_tickets.get().copied().unwrap_or(true),
        };
        let (options, wrong) = self.judged(options);
        for (key, message) in wrong {
            self.mistake_at(level, &path(key), &message);
        }
        Some(options)
    }

    fn tls_of_variables(&mut self, signal: Signal, reading: &mut Reading) -> Arc<TlsOptions> {
        let mut file = |key, suffix| {
            let (name, path) = self.first(signal, suffix)?;
            reading.say_of(signal, key, quoted(&path), &name);
            Some((name, SecretSource::File(path.into())))
        };
        let (ca, cert, key) = (
            file("tls.ca", "CERTIFICATE"),
            file("tls.cert", "CLIENT_CERTIFICATE"),
            file("tls.key", "CLIENT_KEY"),
        );
        let source = |one: &Option<(String, SecretSource)>| one.as_ref().map(|(_, s)| s.clone());
        match (&cert, &key) {
            (Some((name, _)), None) => {
                self.wrong_variable(
                    name,
                    "needs the key's file in OTEL_EXPORTER_OTLP_CLIENT_KEY",
                );
            }
            (None, Some((name, _))) => self.wrong_variable(
                name,
                "needs the certificate's file in OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            ),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let options = TlsOptions {
            ca: source(&ca),
            cert: source(&cert),
            key: source(&key),
            ..TlsOptions::default()
        };
        let (options, wrong) = self.judged(options);
        for (wrong, message) in wrong {
            let name = match wrong {
                "ca" => &ca,
                "cert" => &cert,
                _ => &key,
            };
            if let Some((name, _)) = name {
                self.wrong_variable(name, &message);
            }
        }
        options
    }

    fn temporality(&mut self, raw: &raw::Otlp, reading: &mut Reading) -> Temporality {
        if let Some(said) = raw.rtt.get() {
            return *said;
        }
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let said = self.text(name);
        let (rtt, from) = match said.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("cumulative") => (Temporality::Cumulative, name),
            Some("delta" | "lowmemory") => (Temporality::Delta, name),
            Some(_) => {
                let wrong = "expected cumulative, delta or lowmemory; or write otlp.rtt";
                self.wrong_variable(name, wrong);
                (Temporality::Delta, name)
            }
            None => (Temporality::Delta, USUAL),
        };
        reading.say("rtt", quoted(rtt.as_str()), from);
        rtt
    }

    /// Which traces are recorded. Ours have no parents: what asks for those says nothing else.
    fn sampled(&mut self, reading: &mut Reading) -> Sampled {
        const SAMPLERS: [&str; 3] = ["always_on", "always_off", "traceidratio"];
        let name = "OTEL_TRACES_SAMPLER";
        let Some(sampler) = self.text(name) else {
            return Sampled::ALL;
        };
        reading.remark(Signal::Traces, "sampler", quoted(&sampler), name);
        match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
            "always_on" => Sampled::ALL,
            "always_off" => Sampled(0),
            "traceidratio" => {
                let name = "OTEL_TRACES_SAMPLER_ARG";
                let Some(text) = self.text(name) else {
                    return Sampled::ALL;
                };
                reading.remark(Signal::Traces, "sampler_arg", quoted(&text), name);
                match text.parse::<f64>() {
                    Ok(share) if (0.0..=1.0).contains(&share) => Sampled::share(share),
                    Ok(_) | Err(_) => {
                        self.wrong_variable(name, "expected a number from 0 to 1");
                        Sampled::ALL
                    }
                }
            }
            other => {
                let near = nearest(other, SAMPLERS.into_iter());
                let near = near.map_or(String::new(), |near| format!("; `{near}`?"));
                let wrong = format!(
                    "expected always_on, always_off or traceidratio, each also after \
                     parentbased_{near}"
                );
                self.wrong_variable(name, &wrong);
                Sampled::ALL
            }
        }
    }

    /// The attributes of the variable, those of the file over them.
    fn resource(&mut self, raw: &raw::Otlp, reading: &mut Reading) -> Vec<(Box<str>, Box<str>)> {
        let mut attributes = BTreeMap::<Box<str>, (Box<str>, &str)>::new();
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let text = self.text(name).unwrap_or_default();
        for (n, pair) in text.split(',').enumerate() {
            if pair.trim().is_empty() {
                continue;
            }
            let decoded = pair.split_once('=').and_then(|(key, value)| {
                let decode = |text: &str| {
                    let decoded = percent_encoding::percent_decode_str(text.trim()).decode_utf8();
                    Some(Box::<str>::from(decoded.ok()?))
                };
                Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
            });
            match decoded {
                Some((key, value)) => drop(attributes.insert(key, (value, name))),
                None => {
                    let n = n + 1;
                    let wrong = format!("entry {n} is none; write NAME=VALUE,NAME=VALUE");
                    self.wrong_variable(name, &wrong);
                }
            }
        }
        let name = "OTEL_SERVICE_NAME";
        if let Some(service) = self.text(name) {
            attributes.insert("service.name".into(), (service.into(), name));
        }
        let own = raw.resource.get().into_iter().flat_map(|table| &table.0);
        for (key, (value, from)) in &attributes {
            if own.clone().all(|(known, _)| known != key) {
                let key = KeyPath(&["resource".into(), Step::Key(key.to_string())]).to_string();
                let line = format!("{key} = {}  # default: {from}", quoted(value));
                reading.remarks.push(line);
            }
        }
        let of_variables = attributes.into_iter().map(|(key, (value, _))| (key, value));
        let own = own.map(|(key, value)| (key.clone(), value.clone()));
        let all: BTreeMap<_, _> = of_variables.chain(own).collect();
        all.into_iter().collect()
    }

    /// What a signal's own variable says, or that of all.
    fn first(&mut self, signal: Signal, suffix: &str) -> Option<(String, String)> {
        for name in [own(signal, suffix), format!("OTEL_EXPORTER_OTLP_{suffix}")] {
            if let Some(text) = self.text(&name) {
                return Some((name, text));
            }
        }
        None
    }

    /// A variable's value; an empty one is none, as the specification has it.
    fn text(&mut self, name: &str) -> Option<String> {
        let value = (self.variable)(name)?;
        match value.into_string() {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(_) => {
                self.wrong_variable(name, "is not UTF-8");
                None
            }
        }
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        Some(self.text(name)?.eq_ignore_ascii_case("true"))
    }

    /// How long what a signal has waits for others.
    fn delay(&mut self, signal: Signal, name: &str, reading: &mut Reading) -> Option<Duration> {
        let delay = self.millis(name, 1)?;
        reading.remark(
            signal,
            "schedule_delay",
            quoted(&format_duration(delay)),
            name,
        );
        Some(delay)
    }

    fn millis(&mut self, name: &str, least: u64) -> Option<Duration> {
        let text = self.text(name)?;
        self.parsed_millis(name, &text, least)
    }

    fn parsed_millis(&mut self, name: &str, text: &str, least: u64) -> Option<Duration> {
        /// As long as any wait of the file.
        const MOST: u64 = 365 * 86_400_000;
        match text.parse::<u64>() {
            Ok(millis) if (least..=MOST).contains(&millis) => Some(Duration::from_millis(millis)),
            Ok(_) | Err(_) => {
                let expected = format!("expected milliseconds, a whole number of {least} or more");
                self.wrong_variable(name, &expected);
                None
            }
        }
    }

    /// Reports a mistake in a variable, once.
    fn wrong_variable(&mut self, name: &str, message: &str) {
        if self.seen.insert((name.to_owned(), message.to_owned())) {
            self.mistakes.push(Mistake {
                place: name.to_owned(),
                key: String::new(),
                message: message.to_owned(),
            });
        }
    }
}

/// What is found out on the way for `check --print`.
#[derive(Default)]
struct Reading {
    derived: Vec<(&'static str, String, String)>,
    remarks: Vec<String>,
}

impl Reading {
    fn say(&mut self, key: &'static str, value: String, from: &str) {
        self.derived.push((key, value, from.to_owned()));
    }

    /// Of a key in which signals may differ. The key shows what is said for all; where a signal has
    /// something else, a remark does.
    fn say_of(&mut self, signal: Signal, key: &'static str, value: String, from: &str) {
        let is_own = from.starts_with(&own(signal, ""));
        let known = self.derived.iter().find(|(known, _, _)| *known == key);
        match known {
            None if !is_own => self.say(key, value, from),
            Some((_, said, by)) if *said == value && by == from => {}
            Some(_) | None => self.remark(signal, key, value, from),
        }
    }

    /// What only a comment can say.
    fn remark(&mut self, signal: Signal, what: &str, value: String, from: &str) {
        let signal = signal.as_str();
        self.remarks
            .push(format!("# {signal}: {what} = {value}  # {from}"));
    }
}

fn has_version<T>(field: &Field<T>) -> bool {
    matches!(field, Field::Set(..))
}

fn own(signal: Signal, suffix: &str) -> String {
    let signal = signal.as_str().to_uppercase();
    format!("OTEL_EXPORTER_OTLP_{signal}_{suffix}")
}

fn variable_is_set(variable: super::Variable<'_>, name: &str) -> bool {
    variable(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
}

fn header(pair: &str) -> Result<(http::HeaderName, SecretSource), &'static str> {
    let (name, value) = pair.split_once('=').ok_or("has no `=`")?;
    let name = http::HeaderName::from_bytes(name.trim().as_bytes());
    let name = name.map_err(|_| "has no header's name before the `=`")?;
    let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8();
    let value = value.map_err(|_| "is not UTF-8")?;
    if http::HeaderValue::from_str(&value).is_err() {
        return Err("holds a character that no header may");
    }
    Ok((
        name,
        SecretSource::Literal(Secret::new(value.as_ref().into())),
    ))
}
