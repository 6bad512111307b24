hookward providers
hookward providers mobility-work
hookward providers gains
hookward providers paypal
hookward providers trello
hookward providers --evidence vendor-vector
hookward providers partsource
hookward providers acme
