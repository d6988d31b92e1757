-- :name lineage
-- The name of this database, which its copies share.
-- locks: none
select lineage from control.lineage;

-- :name sign
-- Keys do not change until this transaction ends. Taken by whoever signs; whoever changes keys waits for them all.
-- locks: none
select pg_advisory_xact_lock_shared(7303014501662214001);

-- :name change_keys
-- Nobody signs until this transaction ends.
-- locks: none
select pg_advisory_xact_lock(7303014501662214001);

-- :name alone
-- Whether this transaction is the only one to make trees of the tenant, until it ends.
-- locks: none
select pg_try_advisory_xact_lock(hashtextextended('control.tree ' || %(tenant)s, 0)) as alone;

-- :name turn
-- As `alone`, but waits for its turn.
-- locks: none
select pg_advisory_xact_lock(hashtextextended('control.tree ' || %(tenant)s, 0));

-- :name latest
-- The tenant's newest tree.
-- locks: none
select number, at, text, digest, key_id, signature, restored
from control.tree where tenant = %(tenant)s order by number desc limit 1;

-- :name numbered
-- Some of the tenant's trees, in order.
-- locks: none
select number, at, text, digest, key_id, signature, restored
from control.tree where tenant = %(tenant)s and number = any (%(numbers)s) order by number;

-- :name restored
-- The statement, if there is one, that gave up a tree which is not here: it names it, or its number passed it over.
-- locks: none
select t.number
from control.tree t
where t.tenant = %(tenant)s and t.restored
  and (t.text::jsonb -> 'restored' @> jsonb_build_object('number', %(number)s::bigint, 'digest', %(digest)s::text)
       or (t.number > %(number)s
           and not exists (select from control.tree b
                           where b.tenant = t.tenant and b.number >= %(number)s and b.number < t.number)))
limit 1;

-- :name moved
-- The heads that no tree has gathered, of all runs.
-- locks: none
select r.run_id, r.ledger_seq as seq, r.ledger_hash as hash
from control.run r
where r.tenant = %(tenant)s and r.ledger_seq > 0
  and not exists (select from control.tree_leaf t
                  where t.tenant = r.tenant and t.run_id = r.run_id and t.seq = r.ledger_seq)
order by r.run_id limit %(limit)s;

-- :name moved_since
-- As `moved`, of the runs that have an entry since an instant.
-- locks: none
with lately as materialized (
    select distinct l.run_id from control.ledger l where l.tenant = %(tenant)s and l.at > %(since)s
)
select r.run_id, r.ledger_seq as seq, r.ledger_hash as hash
from lately join control.run r on r.tenant = %(tenant)s and r.run_id = lately.run_id
where not exists (select from control.tree_leaf t
                  where t.tenant = r.tenant and t.run_id = r.run_id and t.seq = r.ledger_seq)
order by r.run_id limit %(limit)s;

-- :name add
-- One more tree. A number that is taken is a unique violation.
-- locks: tree
insert into control.tree (tenant, number, at, size, text, digest, restored, key_id, signature)
values (%(tenant)s, %(number)s, %(at)s, %(size)s, %(text)s, %(digest)s, %(restored)s, %(key_id)s, %(signature)s);

-- :name add_leaves
-- Its leaves, in their order.
-- locks: tree_leaf
insert into control.tree_leaf (tenant, number, place, run_id, seq, hash)
select %(tenant)s, %(number)s, l.n - 1, l.run_id, l.seq, l.hash
from unnest(%(runs)s::uuid[], %(seqs)s::bigint[], %(hashes)s::bytea[]) with ordinality as l(run_id, seq, hash, n);

-- :name leaves
-- The leaves of a tree in their order.
-- locks: none
select run_id, seq, hash from control.tree_leaf where tenant = %(tenant)s and number = %(number)s order by place;

-- :name leaf_of
-- The newest leaf of a run.
-- locks: none
select number, place, seq, hash
from control.tree_leaf where tenant = %(tenant)s and run_id = %(run_id)s order by seq desc limit 1;

-- :name keys
-- The public keys, oldest first.
-- locks: none
select key_id, public, replaces, made_by, since, text, signature from control.signing_key order by since, key_id;

-- :name add_key
-- One more key; it replaces another or none.
-- locks: signing_key
insert into control.signing_key (key_id, public, replaces, made_by, since, text, signature)
values (%(key_id)s, %(public)s, %(replaces)s, %(made_by)s, %(since)s, %(text)s, %(signature)s);
