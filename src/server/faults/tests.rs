use tokio::time::{Duration, Instant};

use super::*;
use crate::proto::close::CloseFrame;
use crate::proto::event::Message;

fn faults(query: &str) -> Faults {
    Faults::parse(query, &[], Others::Mistakes).unwrap()
}

#[test]
fn the_earliest_cut_comes_first_and_only_idleness_moves() {
    let since = Instant::now();
    let secs = Duration::from_secs;
    let all = faults("close=1012&reason=x&after=5s&lifetime=8s&idle_cut=3s");
    let schedule = Schedule::new(&all, since);
    assert_eq!(
        schedule.next(since),
        Some((since + secs(3), Cut::Fin, "idle_cut"))
    );
    let close = Cut::Close(CloseFrame::new(1012, "x"));
    let at_five = Some((since + secs(5), close, "close"));
    assert_eq!(schedule.next(since + secs(4)), at_five);
    let lifetime = faults("lifetime=8s");
    let schedule = Schedule::new(&lifetime, since);
    let at_eight = Some((since + secs(8), Cut::Fin, "lifetime"));
    assert_eq!(schedule.next(since + secs(7)), at_eight);
    assert_eq!(Schedule::new(&faults("flood"), since).next(since), None);
    for (query, cut) in [
        ("reset", Cut::Reset),
        ("stall", Cut::Stall),
        ("fin", Cut::Fin),
    ] {
        assert_eq!(
            Schedule::new(&faults(query), since).next(since),
            Some((since, cut, query))
        );
    }
}

#[test]
fn answers_come_late_wrong_or_not_at_all() {
    let now = Instant::now();
    let pong = |text: &'static str| Answer::Pong(text.into());
    let mut right = Answers::new(&faults("fin"));
    assert_eq!(right.owe(pong("a"), Answer::wrong_pong(), now), None);
    assert_eq!(right.due(now), Some(pong("a")));
    assert_eq!(right.due(now), None);

    let mut answers = Answers::new(&faults("no_pongs_after=1&pong_delay=2s"));
    assert_eq!(
        answers.owe(pong("a"), Answer::wrong_pong(), now),
        Some("pong_delay")
    );
    let given = answers.owe(pong("b"), Answer::wrong_pong(), now);
    assert_eq!(given, Some("no_pongs_after"));
    let due = now + Duration::from_secs(2);
    assert_eq!(answers.next(), Some(due));
    assert_eq!(answers.due(due - Duration::from_millis(1)), None);
    assert_eq!(answers.due(due), Some(pong("a")));
    assert_eq!(answers.next(), None);

    let mut wrong = Answers::new(&faults("wrong_payload"));
    let given = wrong.owe(pong("a"), Answer::wrong_pong(), now);
    assert_eq!(given, Some("wrong_payload"));
    assert_eq!(wrong.due(now), Some(Answer::wrong_pong()));

    let mut both = Answers::new(&faults("wrong_payload&pong_delay=2s"));
    let given = both.owe(pong("a"), Answer::wrong_pong(), now);
    assert_eq!(given, Some("wrong_payload"));
    assert_eq!((both.next(), both.due(now)), (Some(due), None));
}

#[test]
fn what_is_owed_has_a_bound_in_bytes_and_in_number() {
    let (now, later) = (Instant::now(), faults("pong_delay=1h"));
    let mut answers = Answers::new(&later);
    let large = Answer::Message(Message::text("x".repeat(70_000)));
    answers.owe(large.clone(), large, now);
    assert!(answers.is_full());
    answers.due(now + Duration::from_secs(3600)).unwrap();
    assert!(!answers.is_full());
    let mut count = 0;
    while !answers.is_full() {
        answers.owe(Answer::Pong("".into()), Answer::wrong_pong(), now);
        count += 1;
    }
    assert_eq!(count, 1024);
}

#[test]
fn a_switch_is_told_once_per_connection() {
    let all = faults("flood&fin");
    let mut served = Served::new("test", Origin(None), &all);
    for switch in ["flood", "flood", "fin", "flood"] {
        served.tell(switch);
    }
    assert_eq!(served.told, ["flood", "fin"]);
}
