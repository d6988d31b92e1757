-- :name users :one
-- How many connections of clients there are besides the one that asks.
-- locks: none
select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid();
