-- Generations: a cached answer names the generations of everything that it depends on, and is used only while
-- all of them still have the value that was read before it was computed. Every write that can change an answer
-- raises them in its own transaction. A missing row has the value 0.
--
-- The key is a 64-bit hash of what the generation is about (postgres::Generation makes it from names, so a reader
-- needs no row id): small rows and a small index, and one statement that raises or reads several. Two things
-- whose keys collide share a generation, which at worst computes an answer again. Only `value` is updated, so
-- with the free space of the fill factor an update writes no index entry.
create table generations(
  key bigint primary key,
  value bigint not null
) with (fillfactor = 70);
