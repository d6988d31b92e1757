-- :name lock
-- One migration at a time: whether it is this session's turn. Asked again and again, never waited for: a statement that
-- waits keeps its snapshot, and the holder's CREATE INDEX CONCURRENTLY waits for snapshots, which is a deadlock.
-- locks: none
select pg_try_advisory_lock(%(key)s);

-- :name unlock
-- Ends what `lock` began.
-- locks: none
select pg_advisory_unlock(%(key)s);

-- :name has_migrations
-- A row if the control schema was ever migrated here.
-- locks: none
select 1 from pg_tables where schemaname = 'control' and tablename = 'migration';

-- :name applied
-- Version and checksum of each applied migration.
-- locks: none
select version, checksum from control.migration order by version;

-- :name record
-- The migration just applied, in its own transaction.
-- locks: migration
insert into control.migration (version, name, checksum) values (%(version)s, %(name)s, %(sum)s);

-- :name build_walls
-- Row security on those of LangGraph's tables that have none of ours yet.
-- locks: checkpoints, checkpoint_blobs, checkpoint_writes, store, store_vectors
select control.build_walls();

-- :name add_queue
-- Where Procrastinate's tables are.
-- locks: none
create schema if not exists control_queue;

-- :name in_queue
-- What has no schema in its name is the queue's, until the transaction ends.
-- locks: none
select set_config('search_path', 'control_queue', true), obj_description('control_queue'::regnamespace) as last;

-- :name mark_queue
-- The newest of Procrastinate's own migrations that these tables have.
-- locks: none
comment on schema control_queue is %(last)s;

-- :name build_queue
-- What each of our roles may do with the queue.
-- locks: procrastinate_jobs
select control.build_queue();

-- :name remove_walls
-- Takes row security and our roles' rights off LangGraph's tables, and names those.
-- locks: checkpoints, checkpoint_blobs, checkpoint_writes, store, store_vectors
select control.remove_walls();

-- :name drop_schema
-- Everything of ours, for good.
-- locks: all of schemas control and control_queue
drop schema if exists control, control_queue cascade;

-- :name connected
-- How many processes hold claims or may, by the locks that are their sign of life.
-- locks: none
select count(*) from control.living;

-- :name walled
-- A row if LangGraph's checkpoints are walled off: not where they were ejected.
-- locks: none
select 1 from pg_class where oid = to_regclass('checkpoints') and relrowsecurity;

-- :name server
-- The process that serves this session, and whether it refuses writes.
-- locks: none
select pg_backend_pid(), pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean;
