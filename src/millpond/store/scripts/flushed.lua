#!lua flags=allow-oom
-- flushed: succeeded | failed -> gone
--
-- The rows of a flow's stream up to an id are safe elsewhere: they and their jobs leave. Said
-- again it changes nothing.
--
-- uses base turn
-- ARGV  4 flow
--       5 last   id of the last row that is safe, or '' for none
--       6 done   1: nothing more will come; the flow itself leaves, if nothing of it is open
--
-- Replies  {'flushed', held}   jobs of the flow that are still held
--          {'more'}            more than 1,000 rows: say it again

local flow, last, done = arg[1], arg[2], arg[3]
local f = P .. 'f:' .. flow
local out = f .. ':out'
local rows = last ~= '' and redis.call('XRANGE', out, '-', last, 'COUNT', 1000) or {}
for _, row in ipairs(rows) do
  if row[2][1] == 'job' and redis.call('DEL', P .. 'j:' .. row[2][2]) == 1 then redis.call('HINCRBY', f, 'held', -1) end
  redis.call('XDEL', out, row[1])
end
if #rows == 1000 then return reply('more') end

local held, open, lane, class, user, org = unpack(redis.call('HMGET', f, 'held', 'open', 'lane', 'class', 'user', 'org'))
held, open = tonumber(held) or 0, tonumber(open) or 0
if done == '1' and open == 0 and redis.call('XLEN', out) == 0 then
  if lane then
    step_out(lane, class, user, flow)
    redis.call('ZREM', flows_level(lane, class, user) .. ':idle', flow)
  end
  redis.call('SREM', P .. 'flows', flow)
  redis.call('ZREM', P .. 'soon', flow)
  if org then redis.call('ZREM', P .. 'o:' .. org .. ':parked', flow) end
  redis.call('DEL', f, f .. ':q', f .. ':later', f .. ':parked', out)
end
return reply('flushed', held)
