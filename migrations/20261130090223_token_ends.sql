-- Tokens whose end was announced, each once.
create table token_ends_announced(
  token_id uuid primary key references tokens,
  announced_at timestamptz not null
);
