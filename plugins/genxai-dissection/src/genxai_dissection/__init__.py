"""GAN Dissection for genxai: which units of a generator draw what, and what they cause."""
