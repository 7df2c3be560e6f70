//! Event streams: what is told of them, and how each of their ends counts.

use super::*;
use crate::proto::close::Cause;

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// A server that answers one request with a stream, and then plays `script`.
async fn stream_peer<F>(
    headers: &'static str,
    script: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> Peer
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: test\r\n{headers}\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        script(stream).await;
    });
    Peer { address, script }
}

fn url_of(peer: &Peer) -> String {
    format!("http://{}/events", peer.address)
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// The same as a chunk.
async fn say_chunk(stream: &mut TcpStream, text: &str) {
    say(stream, &format!("{:x}\r\n{text}\r\n", text.len())).await;
}

/// Waits until the client is gone.
async fn left(mut stream: TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "nothing is sent");
}

/// The line's end after `gap=`, in seconds.
fn gap_of(line: &str) -> f64 {
    let (_, gap) = line.split_once(" gap=").expect(line);
    gap.strip_suffix(" s").expect(line).parse().unwrap()
}

#[tokio::test]
async fn every_arrival_is_a_line_and_the_count_is_of_both_kinds() {
    let (seen, wait) = tokio::sync::oneshot::channel();
    let peer = stream_peer("", |mut stream| async move {
        say(&mut stream, ": first of all\n\nid: 7\ndata: four\n\n").await;
        // The gap is the client's, so it begins where the client is.
        wait.await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        say(&mut stream, "data: 4\ndata: 4\n\ndata: too many\n\n").await;
        left(stream).await;
    })
    .await;
    let (_never, signals) = mpsc::unbounded_channel();
    let second = || seen.send(()).unwrap();
    let told = run_with(&["-c3", &url_of(&peer)], signals, "seq=2 ", second).await;
    assert!(matches!(told.outcome, Ok(Outcome::Over)));
    assert!(told.answered);
    assert_eq!(told.lines[0], format!("ping {}", url_of(&peer)));
    assert!(told.lines[1].starts_with("  tcp "), "{}", told.text());
    assert!(told.lines[2].starts_with("  upgrade "), "{}", told.text());
    assert!(told.lines[3].ends_with(&format!("via {}", peer.address)));
    let lines = told.after_chart();
    for (line, before) in lines.iter().zip([
        format!("comment from {}: seq=1 gap=", peer.address),
        format!("event from {}: seq=2 bytes=4 gap=", peer.address),
        format!("event from {}: seq=3 bytes=3 gap=", peer.address),
    ]) {
        assert!(line.starts_with(&before), "{line}");
    }
    let gaps = [lines[0], lines[1], lines[2]].map(gap_of);
    assert!(gaps[2] >= 0.05, "{gaps:?}");
    assert_eq!(lines[3], "--- 127.0.0.1 ping statistics ---");
    assert!(
        lines[4].starts_with("2 events, 1 comment, time 0."),
        "{}",
        lines[4]
    );
    assert!(lines[5].starts_with("first event after 0."), "{}", lines[5]);
    let longest = lines[6].strip_prefix("gap min/avg/max = ").unwrap();
    let longest = longest.strip_suffix(" s").unwrap().rsplit('/').next();
    let expected = gaps[1].max(gaps[2]);
    assert_eq!(longest.unwrap().parse(), Ok(expected), "{}", lines[6]);
    assert_eq!(lines.len(), 7, "{}", told.text());
    peer.done().await;
}

#[tokio::test]
async fn a_silent_stream_is_given_up_and_has_failed_whatever_came() {
    for (said, came) in [
        ("", "0 events, 0 comments"),
        (":\n\n", "0 events, 1 comment"),
    ] {
        let peer = stream_peer("", move |mut stream| async move {
            say(&mut stream, said).await;
            left(stream).await;
        })
        .await;
        let told = told(&["-w", "80ms", &url_of(&peer)]).await;
        let text = told.text();
        let words = "ended by us: no heartbeat from the peer for 80ms (-w)";
        assert!(told.lines.iter().any(|line| line == words), "{text}");
        assert!(text.contains(came), "{text}");
        let first = text.contains("first comment after 0.");
        assert_eq!(first, !said.is_empty(), "{text}");
        assert!(!text.contains("gap min"), "one is no gap: {text}");
        assert!(!told.answered, "{text}");
        peer.done().await;
    }
    // What is held by the daemon is given up as late.
    let limit = |flags: &[&str]| {
        let (target, _) = args(&[flags, &["https://a/"]].concat())
            .unwrap()
            .target()
            .unwrap();
        let timing = target.connection.heartbeat.timing(&target.policy.wishes);
        timing.unwrap().max_silence.unwrap()
    };
    assert_eq!(limit(&[]), Duration::from_secs(45));
    assert_eq!(limit(&["-w", "2.5"]), Duration::from_millis(2_500));
}

#[tokio::test]
async fn bytes_are_life_before_they_are_an_event() {
    let (seen, wait) = tokio::sync::oneshot::channel();
    let peer = stream_peer("", |mut stream| async move {
        wait.await.unwrap();
        say(&mut stream, "data: ").await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            say(&mut stream, "x").await;
        }
        say(&mut stream, "\n\n").await;
        left(stream).await;
    })
    .await;
    let (_never, signals) = mpsc::unbounded_channel();
    let stands = || seen.send(()).unwrap();
    let flags = ["-c1", "-w600ms", &url_of(&peer)];
    let told = run_with(&flags, signals, "  total ", stands).await;
    assert!(told.answered, "{}", told.text());
    let line = told.after_chart()[0];
    assert!(line.contains(" bytes=8 ") && gap_of(line) >= 0.75, "{line}");
    peer.done().await;
}

#[tokio::test]
async fn each_end_is_told_in_its_own_words_and_counts_as_it_should() {
    #[derive(Debug, Clone, Copy)]
    enum End {
        Complete,
        Nothing,
        InChunk,
        Plain,
        Reset,
    }
    for (end, flags, words, cause, is_good) in [
        (
            End::Complete,
            &[][..],
            "ended the event stream",
            Cause::ClosedNormal,
            true,
        ),
        (
            End::Complete,
            &["-c2"],
            "ended the event stream",
            Cause::ClosedNormal,
            false,
        ),
        (
            End::Nothing,
            &[],
            "ended the event stream",
            Cause::ClosedNormal,
            false,
        ),
        (
            End::InChunk,
            &[],
            "vanished (FIN in the middle",
            Cause::Fin,
            false,
        ),
        (
            End::Plain,
            &[],
            "vanished (FIN; the response has no",
            Cause::Fin,
            false,
        ),
        (
            End::Reset,
            &[],
            "reset the connection (RST)",
            Cause::Reset,
            false,
        ),
    ] {
        for output in ["text", "json"] {
            let headers = match end {
                End::Plain => "",
                End::Complete | End::Nothing | End::InChunk | End::Reset => CHUNKED,
            };
            let (seen, wait) = tokio::sync::oneshot::channel();
            let peer = stream_peer(headers, move |mut stream| async move {
                let event = "data: one\n\n";
                match end {
                    End::Nothing => {}
                    End::Plain => say(&mut stream, event).await,
                    End::Complete | End::InChunk | End::Reset => {
                        say_chunk(&mut stream, event).await;
                    }
                }
                match end {
                    End::Complete | End::Nothing => say(&mut stream, "0\r\n\r\n").await,
                    End::InChunk => say(&mut stream, "9\r\nda").await,
                    End::Plain => {}
                    End::Reset => {
                        // It would destroy what was not read yet.
                        wait.await.unwrap();
                        let now = Some(Duration::ZERO);
                        socket2::SockRef::from(&stream).set_linger(now).unwrap();
                    }
                }
            })
            .await;
            let url = url_of(&peer);
            let arguments = [flags, &["-o", output, &url]].concat();
            let (_never, signals) = mpsc::unbounded_channel();
            // Only the peer that resets waits for it.
            let first = || {
                let _ = seen.send(());
            };
            let told = run_with(&arguments, signals, "seq", first).await;
            let what = format!("{end:?}: {}", told.text());
            assert_eq!(told.answered, is_good, "{what}");
            if output == "text" {
                let ended = told.lines.iter().find(|line| line.starts_with("ended by "));
                let ended = ended.expect(&what);
                assert!(ended.contains(words), "{what}");
                assert!(ended.starts_with("ended by peer: peer "), "{what}");
            } else {
                let records = told.records();
                let ended = &records[records.len() - 2];
                assert_eq!(ended["cause"], cause.as_str(), "{what}");
                assert_eq!(ended["initiator"], "peer", "{what}");
            }
            peer.done().await;
        }
    }
}

/// What is written, and something to do once these words are.
struct Watched<'a, F> {
    out: &'a mut Vec<u8>,
    words: &'a str,
    then: Option<F>,
}

impl<F: FnOnce()> Write for Watched<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        if String::from_utf8_lossy(self.out).contains(self.words)
            && let Some(then) = self.then.take()
        {
            then();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `ping`, and `then` when `words` have been told.
async fn run_with(
    arguments: &[&str],
    mut signals: mpsc::UnboundedReceiver<Signal>,
    words: &str,
    then: impl FnOnce(),
) -> Told {
    let args = args(arguments).unwrap();
    let (target, _) = args.target().unwrap();
    let mut out = Vec::new();
    let watched = Watched {
        out: &mut out,
        words,
        then: Some(then),
    };
    let mut report = Report::new(watched, &args, &target);
    let run = ping(&target, args.policy(), &mut report, &mut signals);
    let outcome = timeout(PATIENCE, run).await.expect("it hangs");
    let answered = report.answered();
    let text = String::from_utf8(out).unwrap();
    Told {
        lines: text.lines().map(str::to_owned).collect(),
        outcome,
        answered,
    }
}

#[tokio::test]
async fn a_signal_ends_it_with_the_summary() {
    for (said, words, summary, good) in [
        // Fewer than were asked for, but nothing has failed: as ping(8) has it.
        (
            "data\n\n",
            "seq=1 bytes=0 ",
            "1 event, 0 comments, time ",
            true,
        ),
        ("", "  total ", "0 events, 0 comments, time ", false),
    ] {
        let (signal, signals) = mpsc::unbounded_channel();
        let peer = stream_peer("", move |mut stream| async move {
            say(&mut stream, said).await;
            left(stream).await;
        })
        .await;
        let interrupt = || signal.send(Signal::Interrupt).unwrap();
        let told = run_with(&["-c9", &url_of(&peer)], signals, words, interrupt).await;
        let text = told.text();
        assert!(matches!(told.outcome, Ok(Outcome::Over)), "{text}");
        assert_eq!(told.answered, good, "{text}");
        assert!(
            told.lines.iter().any(|line| line.starts_with(summary)),
            "{text}"
        );
        assert!(!text.contains("ended by"), "{text}");
        peer.done().await;
    }
}

#[tokio::test]
async fn the_json_is_what_its_schema_says() {
    let peer = stream_peer("", |mut stream| async move {
        say(&mut stream, ":\ndata: OPENS3CRET\n\n").await;
        left(stream).await;
    })
    .await;
    let told = told(&["-c2", "-ojson", &url_of(&peer)]).await;
    peer.done().await;
    let schema = records::schema();
    let records = told.records();
    let kinds: Vec<&Value> = records.iter().map(|record| &record["type"]).collect();
    assert_eq!(kinds, ["connect", "arrival", "arrival", "end", "summary"]);
    for record in &records {
        let kind = record["type"].as_str().unwrap();
        check(schema_of(&schema, kind), &schema, record, kind);
    }
    assert_eq!(records[0]["headers"]["server"], "test");
    let (comment, event) = (&records[1], &records[2]);
    assert_eq!(
        (&comment["seq"], &comment["kind"]),
        (&1.into(), &"comment".into())
    );
    assert!(comment["bytes"].is_null(), "{comment}");
    assert_eq!(
        (&event["seq"], &event["kind"]),
        (&2.into(), &"event".into())
    );
    assert_eq!(event["bytes"], 10);
    assert!(event["gap_seconds"].is_f64(), "{event}");
    let end = &records[3];
    assert_eq!(
        (&end["cause"], &end["initiator"]),
        (&"shutdown".into(), &"us".into())
    );
    assert!(end["sent"].is_null() && end["received"].is_null(), "{end}");
    let summary = &records[4];
    assert_eq!(
        (&summary["sent"], &summary["loss"]),
        (&0.into(), &Value::Null)
    );
    assert_eq!(summary["messages_received"], 1);
    let stream = &summary["stream"];
    assert_eq!(
        (&stream["events"], &stream["comments"]),
        (&1.into(), &1.into())
    );
    assert!(stream["first_arrival_seconds"].as_f64() <= stream["first_event_seconds"].as_f64());
    assert!(stream["first_event_seconds"].is_f64(), "{stream}");
    assert!(stream["gap"]["avg_seconds"].is_f64(), "{stream}");
    assert!(!told.text().contains("OPENS3CRET"));
}

#[tokio::test]
async fn quiet_leaves_out_the_lines_of_single_arrivals() {
    for output in ["text", "json"] {
        let peer = stream_peer("", |mut stream| async move {
            say(&mut stream, ":\n:\n").await;
            left(stream).await;
        })
        .await;
        let told = told(&["-qc2", "-o", output, &url_of(&peer)]).await;
        let text = told.text();
        assert!(
            !text.contains("seq") && !text.contains("\"arrival\""),
            "{text}"
        );
        assert!(told.answered);
        peer.done().await;
    }
}

#[tokio::test]
async fn verbose_shows_the_headers_and_no_secret() {
    let peer = stream_peer("X-Echo: S3CRETTOKEN\r\n", |mut stream| async move {
        say(&mut stream, ":\n").await;
        left(stream).await;
    })
    .await;
    let url = format!("{}?key=S3CRETQUERY", url_of(&peer));
    let told = told(&["-v", "-c1", "--bearer=S3CRETTOKEN", &url]).await;
    let text = told.text();
    for line in [
        "  > GET /events?*** HTTP/1.1",
        "  > accept: text/event-stream",
        "  > authorization: ***",
        "  < HTTP/1.1 200 OK",
        "  < content-type: text/event-stream",
        "  < x-echo: ***",
    ] {
        assert!(told.lines.iter().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains("S3CRET"), "{text}");
    peer.done().await;
}

#[tokio::test]
async fn what_is_no_stream_is_not_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        say(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
        left(stream).await;
    };
    let flags = ["-ojson", &url];
    let (told, ()) = tokio::join!(told(&flags), served);
    let Ok(Outcome::NotConnected(words)) = &told.outcome else {
        panic!("{:?}", told.outcome);
    };
    assert!(
        words.contains("upgrade: the peer answered 204 No Content"),
        "{words}"
    );
    assert!(!told.answered);
    let summary = &told.records()[1];
    assert_eq!(summary["stream"]["events"], 0, "{summary}");
    assert!(summary["stream"]["gap"].is_null(), "{summary}");
}

#[test]
fn flags_of_pings_are_wrong_for_a_stream_and_the_error_says_why() {
    for (flag, words) in [
        ("-i=2", "--interval: an event stream is not pinged"),
        (
            "--write-timeout=3s",
            "--write-timeout: is about WebSocket frames",
        ),
        (
            "--close-timeout=3s",
            "--close-timeout: is about WebSocket frames",
        ),
        (
            "--max-message-size=1KiB",
            "--max-message-size: is about WebSocket frames",
        ),
        ("--on-open=x", "--on-open: "),
        ("--subprotocol=x", "--subprotocol: "),
        ("--require-subprotocol", "--require-subprotocol: "),
    ] {
        for url in ["http://a/", "HTTPS://a/"] {
            let arguments = args(&[flag, url]).unwrap();
            let wrong = arguments.target().expect_err(flag);
            assert!(wrong.starts_with(words), "{flag}: {wrong}");
            assert_eq!(run_command(&arguments, LogLevel::Info, LogFormat::Text), 2);
        }
    }
    for url in ["http://a/", "ws://a/"] {
        let (_, warnings) = args(&["-w=3", "-c=1", "-q", url])
            .unwrap()
            .target()
            .unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let heartbeat = args(&["--heartbeat=sse", "http://a/"]).unwrap_err();
    assert!(heartbeat.contains("unexpected argument"), "{heartbeat}");
}
