-- Every plan that a rollout carried out: the one it began with and those it adopted. `rollouts.plan_id` is only the last of them.
CREATE TABLE rollout_plans (
    rollout_id TEXT NOT NULL REFERENCES rollouts(rollout_id),
    plan_id TEXT NOT NULL REFERENCES plans(plan_id),
    PRIMARY KEY (rollout_id, plan_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX rollout_plans_by_plan ON rollout_plans(plan_id);

INSERT INTO rollout_plans (rollout_id, plan_id) SELECT rollout_id, plan_id FROM rollouts;
