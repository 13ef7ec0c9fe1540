//! `henge-sim`: runs seeds, says what they covered, and makes a failure small.

fn main() {
    henge_sim::run::catch_panics();
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().unwrap().parse().unwrap();
    let count: u64 = args.next().unwrap().parse().unwrap();
    let trace = args.next().is_some();
    let mut all = henge_sim::coverage::Coverage::default();
    let mut completed = 0;
    let begin = std::time::Instant::now();
    for seed in from..from + count {
        let plan = std::rc::Rc::new(henge_sim::plan::Plan::new(seed, Default::default()));
        let options = henge_sim::run::Options {
            is_traced: trace,
            ..Default::default()
        };
        let report = henge_sim::run::run::<henge_sim::toy::Toy>(&plan, &options);
        if trace {
            println!("{}", report.trace);
            println!("{plan:?}");
        }
        completed += report.completed;
        all.add(&report.coverage);
        if let Some((place, text)) = report.failure {
            println!("seed {seed}: {place}: {text}");
        }
    }
    println!("{all}");
    println!("{completed} in {:?}", begin.elapsed());
}
