//! Which pods make way for one that the node cannot do without (follows the kubelet's `preemption` package). Pure.

use super::predicates::{CPU, Claim, Lacking, MEMORY};

/// What is told of a pod that makes way.
pub const REASON: &str = "Preempting";
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
pub const DISRUPTION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// From the one whose end matters least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    BestEffort,
    Burstable,
    Guaranteed,
}

/// A pod that may make way.
#[derive(Clone, Debug)]
pub struct Candidate<'c> {
    pub uid: &'c str,
    pub qos: Qos,
    pub claim: &'c Claim,
}

/// Uids of pods whose end frees what is lacking: as few as possible of those that matter most. The error is what cannot
/// be freed.
pub fn victims(candidates: &[Candidate<'_>], lacking: &[Lacking]) -> Result<Vec<String>, String> {
    let of = |qos: Qos| candidates.iter().filter(|of| of.qos == qos).collect::<Vec<_>>();
    let (best_effort, burstable, guaranteed) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let rest = less(lacking, candidates.iter());
    if !rest.is_empty() {
        return Err(format!("no set of running pods found to reclaim resources: {}", told(&rest)));
    }
    let others = best_effort.iter().chain(&burstable).copied();
    let guaranteed = nearest(guaranteed, less(lacking, others));
    let others = best_effort.iter().chain(&guaranteed).copied();
    let burstable = nearest(burstable, less(lacking, others));
    let others = burstable.iter().chain(&guaranteed).copied();
    let best_effort = nearest(best_effort, less(lacking, others));
    Ok([best_effort, burstable, guaranteed].concat().iter().map(|of| of.uid.to_owned()).collect())
}

/// What is still lacking when these have ended.
fn less<'a, 'c: 'a>(
    lacking: &[Lacking],
    ended: impl Iterator<Item = &'a Candidate<'c>> + Clone,
) -> Vec<Lacking> {
    let rest = |of: &Lacking| {
        let freed =
            ended.clone().fold(0_i64, |sum, ended| sum.saturating_add(ended.claim.amount(&of.resource)));
        Lacking { resource: of.resource.clone(), amount: of.amount.saturating_sub(freed) }
    };
    lacking.iter().map(rest).filter(|rest| rest.amount > 0).collect()
}

/// Takes the pod that comes nearest to what is lacking, the smaller of two, until nothing is lacking. All of them
/// together are known to suffice.
fn nearest<'a, 'c>(mut pods: Vec<&'a Candidate<'c>>, mut lacking: Vec<Lacking>) -> Vec<&'a Candidate<'c>> {
    let mut taken = Vec::new();
    while !lacking.is_empty() {
        let size = |pod: &Candidate<'_>| (pod.claim.amount(MEMORY), pod.claim.amount(CPU));
        let best = (0..pods.len()).min_by(|a, b| {
            let (a, b) = (pods[*a], pods[*b]);
            distance(a, &lacking).total_cmp(&distance(b, &lacking)).then_with(|| size(a).cmp(&size(b)))
        });
        let Some(best) = best else { break };
        let pod = pods.swap_remove(best);
        lacking = less(&lacking, std::iter::once(pod));
        taken.push(pod);
    }
    taken
}

/// How much of what is lacking a pod would leave, each resource counting alike.
fn distance(pod: &Candidate<'_>, lacking: &[Lacking]) -> f64 {
    let left = |of: &Lacking| {
        let left = of.amount.saturating_sub(pod.claim.amount(&of.resource)).max(0);
        (left as f64 / of.amount as f64).powi(2)
    };
    lacking.iter().map(left).sum()
}

fn told(lacking: &[Lacking]) -> String {
    let each = |of: &Lacking| format!("(res: {}, q: {}), ", of.resource, of.amount);
    format!("[{}]", lacking.iter().map(each).collect::<String>())
}

#[cfg(test)]
mod tests {
    use api::view::core::Pod;
    use apimachinery::json;
    use proptest::prelude::*;

    use super::*;

    fn claim(cpu: i64, memory: i64) -> Claim {
        let requests = json!({"cpu": format!("{cpu}m"), "memory": memory.to_string()});
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests}}]}});
        let pod: Pod = apimachinery::from_value(pod).expect("a pod");
        Claim::of(&pod)
    }

    fn lacks(rows: &[(&str, i64)]) -> Vec<Lacking> {
        rows.iter().map(|(name, amount)| Lacking { resource: (*name).to_owned(), amount: *amount }).collect()
    }

    fn check(pods: &[(&str, Qos, i64, i64)], lacking: &[(&str, i64)], expect: Result<&[&str], &str>) {
        let claims: Vec<Claim> = pods.iter().map(|(_, _, cpu, memory)| claim(*cpu, *memory)).collect();
        let candidates: Vec<Candidate<'_>> = pods
            .iter()
            .zip(&claims)
            .map(|((uid, qos, ..), claim)| Candidate { uid, qos: *qos, claim })
            .collect();
        let found = victims(&candidates, &lacks(lacking));
        let found = found.as_ref().map(|uids| uids.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.as_deref().map_err(|error| error.as_str()), expect);
    }

    #[test]
    fn those_that_matter_least_go_and_as_few_as_will_do() {
        use Qos::{BestEffort, Burstable, Guaranteed};
        let pods = [
            ("best", BestEffort, 0, 0),
            ("small", Burstable, 100, 100),
            ("large", Burstable, 500, 500),
            ("twin", Burstable, 100, 500),
            ("guaranteed", Guaranteed, 1000, 1000),
        ];
        check(&pods, &[("cpu", 100)], Ok(&["small"]));
        check(&pods, &[("memory", 400)], Ok(&["twin"]));
        check(&pods, &[("cpu", 400), ("memory", 400)], Ok(&["large"]));
        check(&pods, &[("pods", 1)], Ok(&["best"]));
        check(&pods, &[("cpu", 1500)], Ok(&["large", "guaranteed"]));
        let error = "no set of running pods found to reclaim resources: [(res: cpu, q: 300), ]";
        check(&pods, &[("cpu", 2000)], Err(error));
        check(&pods, &[], Ok(&[]));
    }

    proptest! {
        #[test]
        fn the_victims_always_free_what_is_lacking(
            pods in proptest::collection::vec((0_usize..3, 0_i64..2000, 0_i64..2000), 0..8),
            cpu in 1_i64..4000, memory in 1_i64..4000,
        ) {
            let kinds = [Qos::BestEffort, Qos::Burstable, Qos::Guaranteed];
            let claims: Vec<(String, Qos, Claim)> = pods.iter().enumerate()
                .map(|(n, (qos, cpu, memory))| (n.to_string(), kinds[*qos], claim(*cpu, *memory))).collect();
            let candidates: Vec<Candidate<'_>> =
                claims.iter().map(|(uid, qos, claim)| Candidate { uid, qos: *qos, claim }).collect();
            let lacking = lacks(&[("cpu", cpu), ("memory", memory)]);
            match victims(&candidates, &lacking) {
                Ok(uids) => {
                    let ended = candidates.iter().filter(|of| uids.iter().any(|uid| uid == of.uid));
                    prop_assert!(less(&lacking, ended).is_empty());
                }
                Err(_) => prop_assert!(!less(&lacking, candidates.iter()).is_empty()),
            }
        }
    }
}
