-- :name heads
-- Everything recorded on the head of each thread that says where it stands: one row per thread asked for, in any order.
-- State values are not read: of the head's own JSON one detoast; of the blobs those of control channels, and only
-- where the version is news to the node it triggers; of Sends and of recorded answers the first bytes, which hold the
-- node and the number. Every lookup is an index probe; LATERAL with LIMIT or an aggregate keeps the planner from
-- joining whole tables, and the array in a subselect from taking a thousand ids for a cost worth compiling (JIT) for.
-- What a probe compares with is a plain column: under row security no expression may reach the index, and OFFSET 0
-- keeps the planner from making it one again.
-- channels: {name, node, version, version seen, inline, in updated_channels, type, size}; channel_blobs beside it.
-- sends: the beginning of each Send in __pregel_tasks.
-- writes: {checkpoint_ns, task_id, task_path, channel, type, xmin, deferred}; write_blobs beside it. `deferred` is for
-- a branch that a command asked for: a deferred node's channel once held a value of its own, others only inline ones.
-- locks: none
select t.thread_id, h.checkpoint_id, h.metadata, d.channels, d.channel_blobs, d.sends, w.writes, w.write_blobs,
  n.writes as nested, n.write_blobs as nested_blobs, o.orphan_writes, d.format
from unnest((select %(threads)s::text[])) as t (thread_id)
left join lateral (
  select c.checkpoint_id, c.metadata, c.checkpoint
  from checkpoints c
  where c.thread_id = t.thread_id and c.checkpoint_ns = ''
  order by c.checkpoint_id desc limit 1
) h on true
left join lateral (
  select array_agg(array[
      k.key, s.node, k.value, s.version, (j.channel_values ? k.key)::text, (j.updated_channels ? k.key)::text,
      b.type, octet_length(b.blob)::text
    ]) as channels,
    array_agg(case when k.key not in ('__start__', '__pregel_tasks') then b.blob end) as channel_blobs,
    max(p.sends) as sends,
    min(j.v) as format
  from jsonb_to_record(h.checkpoint) as j (
    v int, channel_values jsonb, channel_versions jsonb, versions_seen jsonb, updated_channels jsonb
  )
  cross join lateral jsonb_each_text(j.channel_versions) k
  left join lateral (
    select r.node, j.versions_seen -> r.node ->> k.key as version
    from (select case when k.key ^@ 'branch:to:' then substr(k.key, 11) else split_part(k.key, ':', 3) end as node) r
    where k.key <> '__start__'
    union all
    (select r.node, r.seen ->> k.key
     from jsonb_each(case when k.key = '__start__' then j.versions_seen end) as r (node, seen)
     where r.seen ? k.key and r.node not in ('__input__', '__interrupt__', '__snapshot_bumps__')
     order by r.seen ->> k.key collate "C" desc limit 1)
  ) s on true
  left join lateral (
    select b.type, b.blob
    from checkpoint_blobs b
    where not j.channel_values ? k.key
      and (k.key = '__pregel_tasks' or k.value collate "C" > coalesce(s.version, '') collate "C")
      and b.thread_id = t.thread_id and b.checkpoint_ns = '' and b.channel = k.key and b.version = k.value
      and b.type <> 'empty'
    limit 1
  ) b on true
  left join lateral (
    -- A list of extensions (c7, c8, c9: a length in 1, 2, 4 bytes, then the code): step from head to head. The zeros
    -- keep get_byte inside whatever bytes are there, and the count keeps odd bytes from being walked for long.
    select array_agg(packet.head order by packet.at) as sends
    from (select b.blob || ''::bytea as bytes offset 0) f  -- detoasted once
    cross join lateral (
      with recursive packet (n, at, head) as (
        select 1, a.at, substring(f.bytes from a.at for 600) || '\x0000000000'::bytea
        from (select case get_byte(f.bytes || '\x00'::bytea, 0) when 220 then 4 when 221 then 6 else 2 end as at) a
        where a.at <= length(f.bytes)
        union all
        select n + 1, a.at, substring(f.bytes from a.at for 600) || '\x0000000000'::bytea
        from packet
        cross join lateral (select at + case get_byte(head, 0)
          when 199 then 3 + get_byte(head, 1)
          when 200 then 4 + get_byte(head, 1) * 256 + get_byte(head, 2)
          when 201 then 6 + (get_byte(head, 1) & 63) * 16777216 + get_byte(head, 2) * 65536 + get_byte(head, 3) * 256
            + get_byte(head, 4)
        end as at) a
        where a.at <= length(f.bytes) and n < 100000
      )
      select at, head from packet
    ) packet
  ) p on k.key = '__pregel_tasks' and b.type = 'msgpack'
  where k.key in ('__start__', '__pregel_tasks') or k.key ^@ 'branch:to:' or k.key ^@ 'join:'
) d on true
left join lateral (
  select array_agg(array[
      w.checkpoint_ns, w.task_id, w.task_path, w.channel, w.type, w.xmin::text, w.deferred
    ]) as writes,
    array_agg(w.blob) as write_blobs,
    array_agg(w.task_id) filter (where w.channel = '__interrupt__') as asking
  from (
    select w.checkpoint_ns, w.task_id, w.task_path, w.channel, w.type, w.xmin, case
        when w.channel in ('__error__', '__interrupt__') then w.blob
        when w.channel = '__resume__' then substring(w.blob from 1 for 8)
        when w.channel = '__pregel_tasks' and w.task_id = '00000000-0000-0000-0000-000000000000'
        then substring(w.blob from 1 for 600)
      end as blob,
      case when w.channel ^@ 'branch:to:' and w.task_id = '00000000-0000-0000-0000-000000000000' then exists (
        select from checkpoint_blobs b
        where b.thread_id = t.thread_id and b.checkpoint_ns = '' and b.channel = w.channel and b.type <> 'empty'
      )::text end as deferred
    from checkpoint_writes w
    where w.thread_id = t.thread_id and w.checkpoint_ns = '' and w.checkpoint_id = h.checkpoint_id
    order by w.task_id, w.idx
  ) w
) w on true
left join lateral (
  -- Subgraphs of the asking tasks: each first name of a namespace is found by one probe past the last, since a Send's
  -- node is not in its path. Bounds end in a digit or letter, which every collation sorts after the same text's prefix.
  with recursive space (ns) as (
    (select w.checkpoint_ns from checkpoint_writes w
     where w.thread_id = t.thread_id and w.checkpoint_ns > '' order by w.checkpoint_ns limit 1)
    union all
    select (select w.checkpoint_ns from checkpoint_writes w
            where w.thread_id = t.thread_id and w.checkpoint_ns > p.past
            order by w.checkpoint_ns limit 1)
    from (
      select case when s.ns like '%%:%%' then split_part(s.ns, ':', 1) || ':g' else s.ns end as past
      from space s where s.ns is not null
      offset 0
    ) p
  ),
  bounds (low, high, since) as (
    select s.ns, s.ns, h.checkpoint_id from space s where s.ns not like '%%:%%'
    union all
    select split_part(s.ns, ':', 1) || ':', split_part(s.ns, ':', 1) || ':g', h.checkpoint_id
    from space s where s.ns like '%%|%%:%%' and split_part(s.ns, ':', 1) like '%%|%%'
    union all
    select split_part(s.ns, ':', 1) || ':' || a.task_id,
      split_part(s.ns, ':', 1) || ':' || left(a.task_id, -1)
        || translate(right(a.task_id, 1), '0123456789abcdef', '123456789abcdefg'), ''
    from space s, unnest(w.asking) as a (task_id) where s.ns like '%%:%%' and split_part(s.ns, ':', 1) not like '%%|%%'
  )
  select array_agg(array[x.checkpoint_ns, x.task_id, x.task_path, x.channel, x.type, x.xmin::text, null]) as writes,
    array_agg(case
      when x.channel in ('__error__', '__interrupt__') then x.blob
      when x.channel = '__resume__' then substring(x.blob from 1 for 8)
    end) as write_blobs
  from bounds
  join lateral (
    select q.checkpoint_ns, q.checkpoint_id, q.task_id
    from checkpoint_writes q
    -- Minus three is the fixed place of a question, so that the index suffices. The expressions keep these two columns
    -- from being searched by, as PostgreSQL 18 would, skipping from namespace to namespace.
    where q.thread_id = t.thread_id and q.checkpoint_ns >= bounds.low and q.checkpoint_ns <= bounds.high
      and q.checkpoint_id || '' > bounds.since and q.idx + 0 = -3
    offset 0
  ) q on true
  join lateral (
    select x.*, x.xmin
    from checkpoint_writes x
    where x.thread_id = t.thread_id and x.checkpoint_ns = q.checkpoint_ns and x.checkpoint_id = q.checkpoint_id
      and x.task_id = q.task_id
    offset 0
  ) x on true
) n on w.asking is not null
left join lateral (
  -- By probes as well: for all beyond the head the planner expects a third of the thread, and reads the whole table.
  with recursive beyond (id) as (
    select coalesce(h.checkpoint_id, '')
    union all
    select (select w.checkpoint_id from checkpoint_writes w
            where w.thread_id = t.thread_id and w.checkpoint_ns = '' and w.checkpoint_id > b.id
            order by w.checkpoint_id limit 1)
    from beyond b where b.id is not null
  )
  select count(id) - 1 as orphan_writes from beyond
) o on true
